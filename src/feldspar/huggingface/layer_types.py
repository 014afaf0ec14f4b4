"""Convert sliding windows to transformers' vocabulary (``layer_types``) and back."""

from collections.abc import Mapping
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
    return {"sliding_window": window.tokens, "layer_types": _kinds(window, settings.n_layers)}


def window_of(configuration: Mapping[str, Any]) -> SlidingWindow | None:
    """Return the window of a ``config.json``; every layer has one where it names no types.

    Raises UserError for kinds of layers other than these two.
    """
    tokens, n_layers = configuration.get("sliding_window"), configuration["num_hidden_layers"]
    kinds = list(configuration.get("layer_types") or [WINDOW] * n_layers)
    if tokens is None or WINDOW not in kinds:
        return None
    if len(kinds) != n_layers or not {*kinds} <= {FULL, WINDOW}:
        raise UserError(
            "config.json: layer_types is not supported with this value",
            found=", ".join(map(str, kinds)),
            allowed=f"{WINDOW} or {FULL} for each of {n_layers} layers",
        )
    return window_with(tokens, tuple(i for i, kind in enumerate(kinds) if kind == FULL), n_layers)


def window_with(tokens: int, full_layers: tuple[int, ...], n_layers: int) -> SlidingWindow:
    """Return a window that the ``full_layers`` lack, in the shortest form that says so."""
    if not full_layers:
        return SlidingWindow(tokens=tokens)
    every = full_layers[0] + 1
    if every > 1 and full_layers == tuple(range(every - 1, n_layers, every)):
        return SlidingWindow(tokens=tokens, full_every=every)
    return SlidingWindow(tokens=tokens, full_layers=full_layers)


def _kinds(window: SlidingWindow, n_layers: int) -> list[str]:
    return [FULL if window.is_full(layer) else WINDOW for layer in range(n_layers)]
