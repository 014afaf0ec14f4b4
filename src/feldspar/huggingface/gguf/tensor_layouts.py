"""Layouts in which llama.cpp stores a tensor otherwise than the Hugging Face class.

They are layouts as in ``tensor_rules``, where ours is llama.cpp's form and theirs the class's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RotatedPairs:
    """Rows of queries or keys that llama.cpp rotates as neighbours, and the class as two halves."""

    heads: int

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the rows of each head with both members of a pair beside each other."""
        (tensor,) = parts
        return tensor.unflatten(0, (self.heads, 2, -1)).transpose(1, 2).reshape(tensor.shape)

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the rows of each head with the first members of all pairs before the second."""
        halves = tensor.unflatten(0, (self.heads, -1, 2)).transpose(1, 2)
        return (halves.reshape(tensor.shape),)


@dataclass(frozen=True)
class OneAdded:
    """Gains of a norm: llama.cpp stores them as they are, the class their difference from 1."""

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the gains, in float32 at least."""
        (tensor,) = parts
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32)) + 1

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the differences from 1."""
        return (tensor - 1,)
