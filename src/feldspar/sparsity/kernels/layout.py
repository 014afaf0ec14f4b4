"""The kept entries of a mask in compressed form, by groups of rows that keep the same columns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from feldspar.sparsity.kernels.registers import GROUP

PANEL_VALUES = 8192
"""Values of a tile's panel of columns, as many as fit in 32 KiB of the first-level cache."""


@dataclass(frozen=True)
class Layout:
    """The places of a matrix' kept entries; groups have ``rows`` rows each."""

    rows: int
    """1, or 4 where each four rows keep the same columns."""
    shape: tuple[int, int]
    panels: int
    """Parts of the columns, which are multiplied one after the other, so that inputs of a tile stay
    in the cache. Groups of four rows have one panel: they read inputs less often."""
    begins: Tensor
    """int32 (panels * groups + 1,): the first of the columns of each group in each panel."""
    columns: Tensor
    """int32: the columns of each group in each panel, in their order, times ``tile``."""
    positions: Tensor
    """int64: the places of the values in the matrix, for each column those of the rows."""

    @classmethod
    def of(cls, mask: Tensor, tile: int) -> "Layout":
        """Return the layout of a bool mask (rows, columns), in the largest groups possible."""
        height, width = mask.shape
        rows = GROUP if _is_grouped(mask) else 1
        panel_width = max(PANEL_VALUES // tile, 1) if rows == 1 else width
        panels, groups = -(-width // panel_width), height // rows
        group, column = mask[::rows].nonzero(as_tuple=True)
        part = column // panel_width * groups + group
        order = part.argsort(stable=True)
        group, column = group[order], column[order]
        begins = torch.zeros(panels * groups + 1, dtype=torch.int32)
        begins[1:] = part.bincount(minlength=panels * groups).cumsum(0)
        first = group * rows * width + column
        positions = first[:, None] + torch.arange(rows) * width
        return cls(
            *(rows, (height, width), panels, begins),
            columns=(column * tile).int(),
            positions=positions.flatten(),
        )

    @property
    def groups(self) -> int:
        """Number of groups of rows."""
        return self.shape[0] // self.rows

    def transposed(self, mask: Tensor, tile: int) -> tuple["Layout", Tensor]:
        """Return the layout of the transposed mask, and the order of this layout's values in it."""
        other = Layout.of(mask.T.contiguous(), tile)
        height, width = self.shape
        wanted = other.positions % height * width + other.positions // height
        places = torch.empty(height * width, dtype=torch.int64)
        places[self.positions] = torch.arange(len(self.positions))
        return other, places[wanted]


def _is_grouped(mask: Tensor) -> bool:
    """Return True if each four rows keep the same columns."""
    if mask.shape[0] % GROUP:
        return False
    groups = mask.unflatten(0, (-1, GROUP))
    return bool((groups == groups[:, :1]).all())
