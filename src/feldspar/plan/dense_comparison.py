"""Compare the FLOPs of a Sparse-IFT model with those of its dense model (2303.11525).

Only the matrices of the blocks have equal FLOPs. A wide model has wider scores and a wider head, so
that both numbers are given: that of the blocks, and that of the whole model.
"""

from collections.abc import Collection, Mapping
from typing import Any

from feldspar.core.rows import ParameterRow
from feldspar.model.rows import model_shapes
from feldspar.plan.flops import forward_ledger
from feldspar.recipe.sections.model import ModelSettings


def compare_with_dense(
    model: ModelSettings,
    rows: Collection[ParameterRow],
    context_length: int,
    kept: Mapping[str, int],
) -> dict[str, Any] | None:
    """Return FLOPs of one token's forward pass, by the sparse ledger; None without sparse_iso_flop.

    ``rows`` are those of the model, ``kept`` gives the kept entries of each masked matrix. Each
    ratio is that of the model to the dense one.
    """
    if model.sparse_iso_flop is None:
        return None
    own = forward_ledger(model, rows, context_length, kept)
    dense = forward_ledger(model.dense, model_shapes(model.dense).rows, context_length, {})
    return {
        "type": model.sparse_iso_flop.type,
        "sparsity": model.sparse_iso_flop.sparsity,
        "blocks": _compared(own["matrices"], dense["matrices"]),
        "total": _compared(sum(own.values()), sum(dense.values())),
    }


def _compared(own: float, dense: float) -> dict[str, float]:
    return {"flops": own, "dense": dense, "ratio": own / dense}
