"""State that all layers of one forward pass share, and the cache of keys and values.

The cache is preallocated, for decoding one token at a time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.recipe.sections.model import ModelSettings


class KeyValueCache:
    """A cache for ``max_length_tokens`` keys and values of every layer and key head.

    Rotary keys are stored rotated. ``length_tokens`` is the number of filled positions.
    """

    def __init__(
        self,
        settings: ModelSettings,
        n_sequences: int,
        max_length_tokens: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (n_sequences, settings.kv_heads, max_length_tokens, settings.head_width)
        layers = range(settings.n_layers)
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
        self.max_length_tokens = max_length_tokens
        self.length_tokens = 0

    def require_room(self, n_tokens: int) -> None:
        """Raise UserError when ``n_tokens`` more do not fit."""
        if self.length_tokens + n_tokens > self.max_length_tokens:
            raise UserError(
                f"the cache holds {self.max_length_tokens} tokens",
                found=f"{self.length_tokens} filled and {n_tokens} more",
                do="create it with a larger max_length_tokens",
            )

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store (b, h, t, head_dim) of one layer; return all keys and values up to now."""
        end = self.length_tokens + key.shape[2]
        self.keys[layer][:, :, self.length_tokens : end] = key
        self.values[layer][:, :, self.length_tokens : end] = value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self, n_tokens: int) -> None:
        """Count ``n_tokens`` more positions as filled, once every layer has stored them."""
        self.length_tokens += n_tokens

    def grow(self, max_length_tokens: int) -> None:
        """Make room for ``max_length_tokens`` tokens; those that are stored stay."""
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                new = old.new_empty((*old.shape[:2], max_length_tokens, old.shape[3]))
                new[:, :, : self.length_tokens] = old[:, :, : self.length_tokens]
                tensors[layer] = new
        self.max_length_tokens = max_length_tokens

    def rewind(self, n_tokens: int) -> None:
        """Forget all but the first ``n_tokens``. Raises UserError where there are fewer."""
        if n_tokens > self.length_tokens:
            raise UserError(f"the cache holds {self.length_tokens} tokens, fewer than {n_tokens}")
        self.length_tokens = n_tokens


@dataclass(frozen=True)
class SequenceContext:
    """The tables, documents and cache of one forward pass, which the decoder computes once.

    ``rotary`` holds cosine and sine (..., t, 1, p), ``window_rotary`` those of layers with a window
    where they have a base of their own; ``slopes`` is (h,) in float32, or (h, t) or (b, h, t) where
    each query has its own; ``key_biases``, (h, s) or (b, h, s) for s keys, replace slopes where
    these are rounded; ``document_ids`` is (b, t) and keeps attention inside a document.
    """

    rotary: tuple[Tensor, Tensor] | None = None
    window_rotary: tuple[Tensor, Tensor] | None = None
    slopes: Tensor | None = None
    key_biases: Tensor | None = None
    document_ids: Tensor | None = None
    cache: KeyValueCache | None = None
