"""Masks of kept entries, drawn by name and applied wherever zeros must stay zero.

A weight starts masked, and its gradient is masked before it is clipped, measured or used. So
AdamW's moments of masked entries stay exactly zero, and so do the weights under weight decay.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from feldspar.core.errors import RunError
from feldspar.core.rows import ParameterRow
from feldspar.core.streams import numpy_stream
from feldspar.recipe.sections.sparsity import (
    AnySparsity,
    Dense,
    MaskedSettings,
    MovingSettings,
    StaticSparsity,
)
from feldspar.sparsity.density import kept_count, sparsities, starting_sparsities


def draw_mask(
    name: str,
    shape: tuple[int, ...],
    sparsity: float,
    seed: int,
    sampling: str = "exact",
    block: tuple[int, int] = (1, 1),
) -> Tensor:
    """Return the mask of one matrix, bool of ``shape``, kept or zero in whole blocks.

    It depends only on the seed, the name and these settings. ``block`` must divide ``shape``.
    """
    stream = numpy_stream(seed, "sparsity.mask", name)
    grid = tuple(size // side for size, side in zip(shape, block, strict=True))
    parts = math.prod(grid)
    mask = stream.random(parts, dtype=np.float32) >= sparsity
    if sampling == "exact":
        # Flip surplus or missing blocks at random. Each mask with this count is as likely as with a
        # permutation, in a fifth of the time.
        surplus = int(mask.sum()) - kept_count(parts, sparsity)
        candidates = np.flatnonzero(mask if surplus > 0 else ~mask)
        mask[stream.choice(candidates, abs(surplus), replace=False, shuffle=False)] = surplus < 0
    return _spread(torch.from_numpy(mask).view(grid), block)


def draw_pattern(name: str, shape: tuple[int, ...], kept: int, group: int, seed: int) -> Tensor:
    """Return a mask, bool of ``shape``, that keeps ``kept`` random entries of each ``group``.

    A group is that many neighbours in a row, which are inputs of one neuron; ``group`` must divide
    the length of a row. The mask depends only on the seed, the name, and the pattern.
    """
    stream = numpy_stream(seed, "sparsity.mask", name)
    numbers = stream.random((group, math.prod(shape) // group), dtype=np.float32)
    mask = np.empty(numbers.shape, dtype=np.bool_)
    missing = np.full(numbers.shape[1], kept, dtype=np.int32)
    for place in range(group):
        # Of the places that are left, each is as likely to be among the missing ones.
        mask[place] = numbers[place] * (group - place) < missing
        missing -= mask[place]
    return torch.from_numpy(np.ascontiguousarray(mask.T)).view(shape)


def _spread(grid: Tensor, block: tuple[int, int]) -> Tensor:
    """Return the mask in which each entry of ``grid`` fills a block."""
    if block == (1, 1):
        return grid
    return grid.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)


def draw_row(row: ParameterRow, share: float, settings: MaskedSettings, seed: int) -> Tensor:
    """Return the mask of one matrix with the share of zeros ``share``, as ``settings`` draw it.

    ``seed`` is the recipe's.
    """
    seed = settings.mask_seed(seed)
    if not isinstance(settings, StaticSparsity):
        return draw_mask(row.name, row.shape, share, seed, block=settings.block)
    if settings.kept_of is not None:
        return draw_pattern(row.name, row.shape, *settings.kept_of, seed)
    return draw_mask(row.name, row.shape, share, seed, settings.sampling, settings.block)


@dataclass(frozen=True)
class Masks:
    """The masks of a model by parameter name; a tensor without one is dense."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Bool tensors, True where an entry is kept."""
    settings: AnySparsity = field(default_factory=Dense)
    """Settings with which the masks were drawn, or by which they move."""
    seed: int = 0
    """Seed with which the masks were drawn."""
    ever: Mapping[str, Tensor] = field(default_factory=dict)
    """Bool tensors of masks that drop and grow, True where an entry was ever kept."""

    @classmethod
    def draw(cls, settings: AnySparsity, rows: Iterable[ParameterRow], seed: int) -> "Masks":
        """Return the masks for ``settings`` in a recipe with ``seed``.

        Raises UserError as ``sparsities`` does.
        """
        if isinstance(settings, Dense):
            return cls(settings=settings, seed=seed)
        rows = list(rows)
        shares = starting_sparsities(settings, sparsities(settings, rows))
        masked = [row for row in rows if row.name in shares]
        drawn = {row.name: draw_row(row, shares[row.name], settings, seed) for row in masked}
        return cls(drawn, settings, settings.mask_seed(seed))

    def moving_by(self, settings: AnySparsity) -> "Masks":
        """Return the masks with the settings by which they move from now on, if these do."""
        return replace(self, settings=settings) if isinstance(settings, MovingSettings) else self

    def density(self, name: str) -> float:
        """Return the share of kept entries of a tensor."""
        mask = self.tensors.get(name)
        return 1.0 if mask is None else float(mask.sum()) / mask.numel()

    @torch.no_grad()
    def apply_to_weights(self, model: nn.Module) -> None:
        """Set the masked entries of weights to zero."""
        for name, parameter in model.named_parameters():
            if name in self.tensors:
                dropped = ~self.tensors[name].to(parameter.device)
                # Fill, do not multiply: a negative weight times 0 is -0.
                _local(parameter).masked_fill_(dropped, 0)

    @torch.no_grad()
    def apply_to_gradients(self, model: nn.Module) -> None:
        """Set the gradients of masked entries to zero.

        A gradient that is not finite is kept, so that the guards see the result of the dense
        backward pass.
        """
        pairs = [
            (_local(parameter.grad), self.tensors[name].to(parameter.device))
            for name, parameter in model.named_parameters()
            if name in self.tensors and parameter.grad is not None
        ]
        if pairs:
            gradients, masks = map(list, zip(*pairs, strict=True))
            torch._foreach_mul_(gradients, masks)

    @torch.no_grad()
    def require_zeros(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Raise RunError, naming the tensor, if a masked weight is not zero."""
        for name, mask in self.tensors.items():
            alive = int(torch.count_nonzero(_local(weights[name])[~mask]))
            if alive:
                raise RunError(
                    f"{name} has {alive:,} nonzero weights where its mask requires zeros",
                    where=where,
                    do="restore the checkpoint from a copy; its weights and masks do not "
                    "belong together",
                )


def _local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor that is split over processes."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # pyrefly: ignore
