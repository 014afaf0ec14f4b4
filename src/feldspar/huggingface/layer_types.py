"""Convert sliding windows to transformers' vocabulary (``layer_types``) and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from feldspar.core.errors import UserError
from feldspar.recipe.sections.block_parts import SlidingWindow
from feldspar.recipe.sections.model import ModelSettings

FULL, WINDOW = "full_attention", "sliding_attention"


def layer_types(settings: ModelSettings) -> dict[str, Any]:
    """Return the keys of ``config.json`` that say a sliding window; none without a window."""
    window = settings.sliding_window
    if window is None:
        return {}
    return {"sliding_window": window.tokens, "layer_types": layer_kinds(settings)}


def layer_kinds(settings: ModelSettings) -> list[str]:
    """Return the name of each layer's kind of attention."""
    layers = range(settings.n_layers)
    return [FULL if settings.window_of(layer) is None else WINDOW for layer in layers]


def window_of(
    configuration: Mapping[str, Any], unnamed: Sequence[str] | None = None
) -> SlidingWindow | None:
    """Return the window of a ``config.json``.

    ``unnamed`` are the kinds of its layers where it names none; by default each layer has a window.
    A window longer than the context hides nothing and is left out. Raises UserError for kinds that
    we do not know, and for layers with a window of no length.
    """
    n_layers = configuration["num_hidden_layers"]
    tokens = configuration.get("sliding_window")
    named = configuration.get("layer_types")
    kinds = list(named or unnamed or [WINDOW] * n_layers)
    lacks_length = tokens is None and WINDOW in (named or ())
    if len(kinds) != n_layers or not {FULL, WINDOW}.issuperset(kinds) or lacks_length:
        raise UserError(
            "config.json: layer_types is not supported with this value",
            found=", ".join(map(str, kinds)) + (", without sliding_window" * lacks_length),
            allowed=f"{FULL}, or with a sliding_window {WINDOW}, for each of {n_layers} layers",
        )
    if tokens is None or WINDOW not in kinds or tokens > configuration["max_position_embeddings"]:
        return None
    full = tuple(layer for layer, kind in enumerate(kinds) if kind == FULL)
    return window_with(tokens, full, n_layers)


def window_with(tokens: int, full_layers: tuple[int, ...], n_layers: int) -> SlidingWindow:
    """Return a window that the ``full_layers`` lack, in the shortest form that says so."""
    if not full_layers:
        return SlidingWindow(tokens=tokens)
    every = full_layers[0] + 1
    if every > 1 and full_layers == tuple(range(every - 1, n_layers, every)):
        return SlidingWindow(tokens=tokens, full_every=every)
    return SlidingWindow(tokens=tokens, full_layers=full_layers)
