"""The sparse ledger: training FLOPs if only kept entries were computed (2403.00952).

Per token, forward: 2 per kept entry of the blocks' matrices, 4 L d T for the full (not causally
halved) scores and their sum over values, 2 V d for the head; no table look-up, softmax, norm or
bias. Training is three times that. Masked matrices are multiplied dense, so the ledger of a sparse
phase is not what was executed: that is what the other conventions count.
"""

from collections.abc import Mapping

from feldspar.core.rows import ModelShapes, Role
from feldspar.plan.timeline import PhasePlan
from feldspar.recipe.sections.model import ModelSettings


def phase_ledger(
    model: ModelSettings, shapes: ModelShapes, phase: PhasePlan, kept: Mapping[str, int]
) -> dict[str, float]:
    """Training FLOPs of a phase by term, their sum, and the sum under causal attention.

    ``kept`` gives the kept entries of each masked matrix by name.
    """
    matrices = sum(
        kept.get(row.name, row.count)
        for row in shapes.rows
        if row.in_block and row.role is Role.HIDDEN
    )
    vocabulary = next(row.shape[0] for row in shapes.rows if row.role is Role.EMBEDDING)
    width = model.n_heads * model.head_width
    forward = {
        "matrices": 2 * matrices,
        "attention": 4 * model.scored_keys(phase.context_length) * width,
        "head": 2 * vocabulary * model.d_model,
    }
    terms = {name: 3.0 * flops * phase.length for name, flops in forward.items()}
    total = sum(terms.values())
    causal = 4 * model.scored_keys_if_causal(phase.context_length) * width
    spared = terms["attention"] - 3.0 * causal * phase.length
    return terms | {"total": total, "total_causal": total - spared}
