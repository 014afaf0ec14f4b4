"""Compare the FLOPs of a Sparse-IFT model with those of its dense model (2303.11525).

Only the matrices of the blocks have equal FLOPs. A wide model has wider scores and a wider head, so
that both numbers are given: that of the blocks, and that of the whole model.
"""

from collections.abc import Collection, Mapping
from typing import Any

from feldspar.core.rows import ParameterRow
from feldspar.model.rows import model_shapes
from feldspar.plan.flops import phase_ledger
from feldspar.plan.timeline import PhasePlan
from feldspar.recipe.sections.model import ModelSettings


def compare_with_dense(
    model: ModelSettings,
    rows: Collection[ParameterRow],
    phase: PhasePlan,
    kept: Mapping[str, int],
) -> dict[str, Any] | None:
    """Return FLOPs of one token's forward pass, by the sparse ledger; None without iso_flop.

    ``rows`` are those of the model, ``kept`` gives the kept entries of each masked matrix. Each
    ratio is that of the model to the dense one.
    """
    if model.iso_flop is None:
        return None
    own = _forward(model, rows, phase, kept)
    dense = _forward(model.dense, model_shapes(model.dense).rows, phase, {})
    return {
        "type": model.iso_flop.type,
        "sparsity": model.iso_flop.sparsity,
        "blocks": _compared(own["matrices"], dense["matrices"]),
        "total": _compared(own["total"], dense["total"]),
    }


def _forward(
    model: ModelSettings,
    rows: Collection[ParameterRow],
    phase: PhasePlan,
    kept: Mapping[str, int],
) -> dict[str, float]:
    """Return forward FLOPs of a token by term; training has three times as many."""
    flops = phase_ledger(model, rows, phase, kept)
    return {name: value / (3 * phase.length) for name, value in flops.items()}


def _compared(own: float, dense: float) -> dict[str, float]:
    return {"flops": own, "dense": dense, "ratio": own / dense}
