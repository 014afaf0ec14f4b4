"""Masks: which entries of a tensor are kept, drawn once by name and applied where zeros must stay.

A weight starts masked and its gradient is masked before it is clipped, measured or used; AdamW's
moments of the other entries then stay exactly zero, and so do the weights under weight decay.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from feldspar.core.rows import ParameterRow
from feldspar.core.streams import numpy_stream
from feldspar.sparsity.density import densities, kept_count
from feldspar.sparsity.settings import Dense, StaticSparsity


def draw_mask(
    name: str,
    shape: tuple[int, ...],
    density: float,
    seed: int,
    sampling: str = "exact",
) -> Tensor:
    """The mask of one tensor, bool of ``shape``; depends on the seed, the name and nothing else."""
    stream = numpy_stream(seed, "sparsity.mask", name)
    entries = int(np.prod(shape))
    if sampling == "bernoulli":
        return torch.from_numpy(stream.random(entries) < density).view(shape)
    mask = np.zeros(entries, dtype=np.bool_)
    mask[: kept_count(entries, 1 - density)] = True
    stream.shuffle(mask)
    return torch.from_numpy(mask).view(shape)


class Masks:
    """The masks of a model by parameter name; a tensor without one is dense."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    @classmethod
    def draw(
        cls, settings: Dense | StaticSparsity, rows: Iterable[ParameterRow], seed: int
    ) -> "Masks":
        """The masks that ``settings`` ask for. Raises UserError as ``densities`` does."""
        rows = list(rows)
        shares = densities(settings, rows)
        sampling = settings.sampling if isinstance(settings, StaticSparsity) else "exact"
        return cls(
            {
                row.name: draw_mask(row.name, row.shape, shares[row.name], seed, sampling)
                for row in rows
                if row.name in shares
            }
        )

    def density(self, name: str) -> float:
        """The share of entries of a tensor that are kept, as drawn."""
        mask = self.tensors.get(name)
        return 1.0 if mask is None else float(mask.sum()) / mask.numel()

    @torch.no_grad()
    def apply_to_weights(self, model: nn.Module) -> None:
        """Set the entries that are not kept to zero."""
        for name, parameter in model.named_parameters():
            if name in self.tensors:
                parameter.mul_(self.tensors[name].to(parameter.device))

    @torch.no_grad()
    def apply_to_gradients(self, model: nn.Module) -> None:
        """Set the gradients of entries that are not kept to zero."""
        for name, parameter in model.named_parameters():
            if name in self.tensors and parameter.grad is not None:
                parameter.grad.mul_(self.tensors[name].to(parameter.device))
