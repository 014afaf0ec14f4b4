"""The masked matrices that a phase may multiply sparse, as far as a recipe shows it.

The run chooses among them by measurement. Where a plan can tell that it will choose none, the
FLOPs that the masks save are not realised, and the plan says why.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from feldspar.core.rows import ParameterRow
from feldspar.plan.memory import Machine
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.sparsity import StaticSparsity
from feldspar.sparsity.choice import Kind
from feldspar.sparsity.density import kept_counts
from feldspar.sparsity.kernels.compiled import kernels_refusal


@dataclass(frozen=True)
class PossibleProducts:
    """The masked matrices of a phase, and those for which a run tries sparse products."""

    masked: int
    """Number of masked matrices."""
    possible: int
    """Number of these for which sparse products are tried."""
    not_realised: str | None
    """The reason why none is tried; None where some are."""

    def record(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def masked_kinds(
    recipe: Recipe, rows: Collection[ParameterRow], phase_index: int
) -> dict[str, Kind]:
    """Return the kinds of a phase's masked matrices by name; pruned ones as the phase ends."""
    kept = kept_counts(recipe.sparsity(phase_index), rows)
    return {
        row.name: Kind(row.shape[0], row.shape[1], kept[row.name])
        for row in rows
        if row.name in kept
    }


def possible_products(
    recipe: Recipe, rows: Collection[ParameterRow], machine: Machine, phase_index: int
) -> PossibleProducts | None:
    """Return what sparse products a phase may have on ``machine``; None: no masks."""
    kinds = masked_kinds(recipe, rows, phase_index)
    if not kinds:
        return None
    refusal = _refusal(recipe, machine, phase_index)
    if refusal is not None:
        return PossibleProducts(len(kinds), 0, refusal)
    tries_all = recipe.runtime.masked_products == "sparse"
    possible = sum(tries_all or kind.may_pay for kind in kinds.values())
    few = "the masked matrices are too small, or keep too many entries, for sparse products"
    return PossibleProducts(len(kinds), possible, None if possible else few)


def _refusal(recipe: Recipe, machine: Machine, phase_index: int) -> str | None:
    """Return why a phase multiplies all masked matrices dense, or None."""
    runtime, settings = recipe.runtime, recipe.sparsity(phase_index)
    on_accelerator, in_bfloat16 = (
        machine.runs_on_accelerator(runtime),
        machine.multiplies_bfloat16(runtime),
    )
    if runtime.masked_products == "dense":
        return "runtime.masked_products is dense"
    if runtime.compile is True or (runtime.compile == "auto" and on_accelerator):
        return "compiled blocks multiply all entries (runtime.compile)"
    if not on_accelerator:
        precise = "sparse products on a processor are in float32 only"
        return precise if in_bfloat16 else kernels_refusal()
    patterned = isinstance(settings, StaticSparsity) and settings.kept_of == (2, 4)
    if not (patterned and in_bfloat16):
        return "a CUDA device has sparse products for 2:4 masks in bfloat16 only"
    return None
