"""Training FLOPs by named conventions that are never mixed.

``6P``, ``6P+attention`` and ``detailed`` are those of Cerebras-GPT (2304.03208). ``6P``: 6 per
parameter and token. ``6P+attention``: plus 12 L d T per token for the full (not causally halved)
score matrices. ``detailed``: three times the forward pass, with the token table counted as a
one-hot product and the softmax as three operations a score.

They count every parameter as trained, except in a phase with LoRA. There a frozen parameter has no
gradient of its own: ``6P`` is 6 per trained and 4 per frozen parameter, and ``detailed`` leaves out
the products for gradients of frozen matrices and of the token table.

The sparse ledger (2403.00952) counts the FLOPs if only kept entries were computed. Per token and
forward pass: 2 per kept entry of the blocks' matrices, 4 L d T for the full scores and their sum
over values, 2 V d for the head; no table look-up, softmax, norm or bias. Training is three times
that; a frozen matrix has no product for its own gradient, and none for that of its input where
nothing before it is trained (``plan.products``).

The other conventions count masked entries too: that is what a run executes where it multiplies all
entries. A run that multiplies matrices sparse skips a part of these FLOPs. A run's utilisation and
speed leave out what it skipped (``masked_flops_per_token`` is the most that it can skip).
"""

from collections.abc import Collection, Mapping, Sequence
from operator import mul

from feldspar.core.rows import ModelShapes, ParameterRow, Role
from feldspar.model.low_rank import ROLES as LORA_ROLES
from feldspar.plan.products import ALL, Products, all_products
from feldspar.plan.timeline import PhasePlan, Timeline
from feldspar.recipe.sections.model import ModelSettings

CONVENTIONS = ("6P", "6P+attention", "detailed")
UTILISATION_CONVENTION = "6P+attention"
"""The convention for the share of a device's peak that a run reaches."""


Trained = Collection[ParameterRow] | None
"""The parameters that a phase with LoRA trains. None: a phase without LoRA."""


def training_flops(
    model: ModelSettings,
    shapes: ModelShapes,
    timeline: Timeline,
    trained: Sequence[Trained] | None = None,
) -> dict[str, float]:
    """Return FLOPs of the whole run by convention.

    Each phase is counted at its own context length. ``trained`` has an entry for each phase; None:
    no phase has LoRA.
    """
    totals = dict.fromkeys(CONVENTIONS, 0.0)
    for phase in timeline.phases:
        own = None if trained is None else trained[phase.index]
        per_token = flops_per_token(model, shapes, phase.context_length, own)
        for name, flops in per_token.items():
            totals[name] += flops * phase.length
    return totals


def flops_per_token(
    model: ModelSettings, shapes: ModelShapes, context_length: int, trained: Trained = None
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
    parameters, products = 6.0 * shapes.parameters, 3.0 * forward
    if trained is not None:
        added = 6.0 * sum(row.count for row in trained if row.role in LORA_ROLES)
        names = {row.name for row in trained}
        frozen = [row for row in shapes.rows if row.name not in names]
        parameters += added - 2.0 * sum(row.count for row in frozen)
        products += added - 2.0 * sum(_frozen_products(model, row) for row in frozen)
    return {"6P": parameters, "6P+attention": parameters + scores, "detailed": products}


def _frozen_products(model: ModelSettings, row: ParameterRow) -> int:
    """Return the multiplications of ``detailed`` that a frozen parameter saves."""
    if row.role is Role.EMBEDDING:
        # Nothing stands before the table. A tied head saves its own gradient only.
        return (3 if model.tied_embeddings else 2) * row.count
    hidden = row.role is Role.HIDDEN and row.in_block
    return row.count if hidden or row.role is Role.OUTPUT else 0


def masked_flops_per_token(
    rows: Collection[ParameterRow], kept: Mapping[str, int], trained: Trained = None
) -> float:
    """Return the FLOPs of a token, in forward and backward pass, that belong to masked entries.

    They are a part of ``6P``. ``kept`` gives the kept entries of each masked matrix by name.
    """
    names = None if trained is None else {row.name for row in trained}
    return sum(
        2.0 * (ALL - (names is not None and row.name not in names)) * (row.count - kept[row.name])
        for row in rows
        if row.name in kept
    )


def forward_ledger(
    model: ModelSettings,
    rows: Collection[ParameterRow],
    context_length: int,
    kept: Mapping[str, float],
) -> dict[str, float]:
    """Return the forward FLOPs of a token of a dense or masked model, by the terms of its ledger.

    The token sees the whole context. ``kept`` gives the kept entries of each masked matrix by name.
    """
    trained = _token_ledger(model, rows, context_length, kept, all_products(model.n_layers))
    return {name: value / ALL for name, value in trained.items()}


def _token_ledger(
    model: ModelSettings,
    rows: Collection[ParameterRow],
    context_length: int,
    kept: Mapping[str, float],
    needed: Products,
) -> dict[str, float]:
    """Return the FLOPs of a token in the ``needed`` products, by term."""
    vocabulary = next(row.shape[0] for row in rows if row.role is Role.EMBEDDING)
    keys = model.keys_by_layer(context_length)
    return {
        "matrices": sum(
            2 * kept.get(row.name, row.count) * needed.matrices.get(row.name, ALL)
            for row in rows
            if row.in_block and row.role in (Role.HIDDEN, *LORA_ROLES)
        ),
        "attention": _attention_width(model) * sum(map(mul, keys, needed.attention)),
        "head": 2 * vocabulary * model.d_model * needed.head,
    }


def _attention_width(model: ModelSettings) -> int:
    """Return the FLOPs of a query for each key: its score, and its part of the sum over values."""
    return 4 * model.n_heads * model.head_width


def phase_ledger(
    model: ModelSettings,
    rows: Collection[ParameterRow],
    phase: PhasePlan,
    kept: Mapping[str, float],
    products: Products | None = None,
    dense_gradients: float = 0.0,
) -> dict[str, float]:
    """Return training FLOPs of a phase by term, their sum, and the sum under causal attention.

    ``rows`` are those of the model, with the matrices of LoRA if the phase has it. ``kept`` gives
    the kept entries of each masked matrix by name. ``products`` are those that the phase needs;
    None: it trains the whole model. ``dense_gradients`` are the FLOPs that gradients of masked
    entries take in the whole phase.
    """
    needed = products or all_products(model.n_layers)
    flops = _token_ledger(model, rows, phase.context_length, kept, needed)
    causal = model.keys_by_layer_if_causal(phase.context_length)
    causal_attention = _attention_width(model) * sum(map(mul, causal, needed.attention))
    terms = {name: float(value) * phase.length for name, value in flops.items()}
    terms["matrices"] += dense_gradients
    total = sum(terms.values())
    spared = terms["attention"] - causal_attention * phase.length
    return terms | {"total": total, "total_causal": total - spared}
