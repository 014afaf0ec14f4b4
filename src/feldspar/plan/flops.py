"""Training FLOPs by three named conventions that are never mixed (Cerebras-GPT, 2304.03208).

``6P``: 6 per parameter and token. ``6P+attention``: plus 12 L d T per token for the full
(not causally halved) score matrices. ``detailed``: three times the forward pass, with the token
table counted as a one-hot product and the softmax as three operations a score.
"""

from feldspar.core.rows import ModelShapes, Role
from feldspar.plan.timeline import Timeline
from feldspar.recipe.sections.model import ModelSettings

CONVENTIONS = ("6P", "6P+attention", "detailed")
UTILISATION_CONVENTION = "6P+attention"
"""What a share of a device's peak is a share of."""


def training_flops(
    model: ModelSettings, shapes: ModelShapes, timeline: Timeline
) -> dict[str, float]:
    """FLOPs of the whole run by convention; phases add up, each with its own context length."""
    totals = dict.fromkeys(CONVENTIONS, 0.0)
    for phase in timeline.phases:
        for name, flops in flops_per_token(model, shapes, phase.context_length).items():
            totals[name] += flops * phase.length
    return totals


def flops_per_token(
    model: ModelSettings, shapes: ModelShapes, context_length: int
) -> dict[str, float]:
    """Forward and backward FLOPs of one token by convention."""
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
