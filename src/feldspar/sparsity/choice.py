"""Choose the masked matrices that are multiplied sparse: those where that is measured as faster.

A run and its plan choose by the same rule.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from feldspar.sparsity.products import Speed, measure, sparse_product

Wanted = Literal["auto", "dense", "sparse"]
"""The values of ``runtime.masked_products``."""
SMALLEST = 2**15
"""Entries of a matrix below which a sparse product is not tried: calling it takes longer."""
MOST_KEPT = 0.7
"""Share of kept entries above which no sparse product is tried."""
WORTH = 1.05
"""A sparse product must be this many times as fast: a smaller gain may be noise."""


@dataclass(frozen=True)
class Kind:
    """Masked matrices of one shape with equally many kept entries, whose products take as long."""

    rows: int
    columns: int
    kept: int

    @classmethod
    def of(cls, mask: Tensor) -> "Kind":
        """Return the kind of the matrix that a bool mask (out, in) belongs to."""
        rows, columns = mask.shape
        return cls(rows, columns, int(mask.sum()))

    @property
    def entries(self) -> int:
        """Number of entries, kept or not."""
        return self.rows * self.columns

    @property
    def may_pay(self) -> bool:
        """True if the matrix is large and sparse enough for a sparse product to be tried."""
        return self.entries >= SMALLEST and self.kept <= MOST_KEPT * self.entries


@dataclass(frozen=True)
class Choice:
    """The choice among sparse and dense products, and the speeds that it was made by."""

    matrices: tuple[str, ...]
    """Names of the matrices that are multiplied sparse."""
    masked: int
    """Number of masked matrices."""
    tokens: int
    """Tokens of a micro-batch."""
    speeds: Mapping[Kind, Speed]
    """The speeds of each kind that was tried."""

    def record(self) -> dict[str, Any]:
        """Return plain values for a run's events."""
        tried = [
            {
                "rows": kind.rows,
                "columns": kind.columns,
                "kept": kind.kept,
                "times_as_fast": speed.ratio,
            }
            for kind, speed in self.speeds.items()
        ]
        return {
            "matrices": list(self.matrices),
            "masked": self.masked,
            "tokens": self.tokens,
            "tried": tried,
        }

    def __str__(self) -> str:
        """Describe the choice in a line."""
        told = ", ".join(
            f"{kind.rows} x {kind.columns} {speed.ratio:.2f}" for kind, speed in self.speeds.items()
        )
        return (
            f"sparse products for {len(self.matrices)} of {self.masked} masked matrices "
            f"(times as fast as dense: {told})"
        )


def choose_products(
    kinds: Mapping[str, Kind],
    mask_of: Callable[[str], Tensor],
    wanted: Wanted,
    tokens: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Choice:
    """Choose for micro-batches of ``tokens`` tokens, with products in the precision ``dtype``.

    ``kinds`` are those of the masked matrices by name. ``mask_of`` returns a mask by name; it is
    called once for each kind that is tried.
    """
    speeds: dict[Kind, Speed | None] = {}
    chosen = []
    for name, kind in kinds.items() if wanted != "dense" else ():
        if kind not in speeds:
            speeds[kind] = None
            if kind.may_pay or wanted == "sparse":
                mask = mask_of(name)
                product = sparse_product(mask, dtype, device)
                if product is not None:
                    speeds[kind] = measure(product, mask, tokens, dtype, device)
        speed = speeds[kind]
        if speed is not None and (wanted == "sparse" or speed.ratio > WORTH):
            chosen.append(name)
    tried = {kind: speed for kind, speed in speeds.items() if speed is not None}
    return Choice(tuple(chosen), len(kinds), tokens, tried)
