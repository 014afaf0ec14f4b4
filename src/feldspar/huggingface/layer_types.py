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

    Raises UserError for full layers at other places than ours.
    """
    tokens, n_layers = configuration.get("sliding_window"), configuration["num_hidden_layers"]
    kinds = list(configuration.get("layer_types") or [WINDOW] * n_layers)
    if tokens is None or WINDOW not in kinds:
        return None
    full_every = kinds.index(FULL) + 1 if FULL in kinds else None
    window = None if full_every == 1 else SlidingWindow(tokens=tokens, full_every=full_every)
    if window is None or kinds != _kinds(window, n_layers):
        raise UserError(
            "config.json: layer_types is not supported with this value",
            found=", ".join(map(str, kinds)),
            allowed=f"{WINDOW} in all layers, or {FULL} in every n-th layer and in no other",
        )
    return window


def _kinds(window: SlidingWindow, n_layers: int) -> list[str]:
    return [FULL if window.is_full(layer) else WINDOW for layer in range(n_layers)]
