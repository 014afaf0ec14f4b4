"""Training FLOPs by named conventions that are never mixed.

``6P``, ``6P+attention`` and ``detailed`` are those of Cerebras-GPT (2304.03208). ``6P``: 6 per
parameter and token. ``6P+attention``: plus 12 L d T per token for the full (not causally halved)
score matrices. ``detailed``: three times the forward pass, with the token table counted as a
one-hot product and the softmax as three operations a score.

The sparse ledger (2403.00952) counts the FLOPs if only kept entries were computed. Per token and
forward pass: 2 per kept entry of the blocks' matrices, 4 L d T for the full scores and their sum
over values, 2 V d for the head; no table look-up, softmax, norm or bias. Training is three times
that. Masked matrices are multiplied dense, so the ledger of a sparse phase is not what was
executed: that is what the other conventions count.
"""

from collections.abc import Mapping

from feldspar.core.rows import ModelShapes, Role
from feldspar.plan.timeline import PhasePlan, Timeline
from feldspar.recipe.sections.model import ModelSettings

CONVENTIONS = ("6P", "6P+attention", "detailed")
UTILISATION_CONVENTION = "6P+attention"
"""The convention for the share of a device's peak that a run reaches."""


def training_flops(
    model: ModelSettings, shapes: ModelShapes, timeline: Timeline
) -> dict[str, float]:
    """Return FLOPs of the whole run by convention.

    Each phase is counted at its own context length.
    """
    totals = dict.fromkeys(CONVENTIONS, 0.0)
    for phase in timeline.phases:
        for name, flops in flops_per_token(model, shapes, phase.context_length).items():
            totals[name] += flops * phase.length
    return totals


def flops_per_token(
    model: ModelSettings, shapes: ModelShapes, context_length: int
) -> dict[str, float]:
    """Return forward and backward FLOPs of one token, by convention."""
    attention_width = model.n_heads * model.head_width
    keys = model.scored_keys(context_length)
    scores = 12 * attention_width * keys
    matrices = sum(row.count for row in shapes.rows if row.in_block and row.role is Role.HIDDEN)
    vocabulary = next(row.shape[0] for row in shapes.rows if row.role is Role.EMBEDDING)
    forward = (
        4 * vocabulary * model.d_model
        + 2 * matrices
        + keys * (4 * attention_width + 3 * model.n_heads)
    )
    return {
        "6P": 6.0 * shapes.parameters,
        "6P+attention": 6.0 * shapes.parameters + scores,
        "detailed": 3.0 * forward,
    }


def phase_ledger(
    model: ModelSettings, shapes: ModelShapes, phase: PhasePlan, kept: Mapping[str, int]
) -> dict[str, float]:
    """Return training FLOPs of a phase by term, their sum, and the sum under causal attention.

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
