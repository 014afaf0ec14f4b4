"""Size a recipe to a budget of FLOPs: shape, tokens, batch and schedule, as overrides.

The budget is split by k tokens per parameter (Cerebras-GPT, 2304.03208: 20), P = sqrt(C / 6k), or
by the optimum of a parametric law. FLOPs are counted as 6 P D. The shape keeps head_dim, d_ff /
d_model, vocabulary and context. The tokens spend the budget.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.rows import Role
from feldspar.model.rows import model_shapes
from feldspar.plan.laws.law import ParametricLaw
from feldspar.plan.schedule_scaling import scaled_schedule
from feldspar.plan.summary import Plan
from feldspar.plan.timeline import PhasePlan, Rate
from feldspar.recipe.sections.model import ModelSettings

CONVENTION = "6P"
DEFAULT_TOKENS_PER_PARAMETER = 20.0
ASPECT = 80.0
"""Preferred d_model / n_layers of a shape (2304.03208, section 2)."""
SIZE_WEIGHT = 100.0
"""Weight of the size: an error of a tenth counts as much as a factor e in aspect."""
LARGEST_GRAIN = 64
"""d_ff stays a multiple of the recipe's own largest power of two, up to this one."""
EVEN_SEQUENCES = 8
"""Large batches are multiples of so many sequences, so that devices can divide them."""
MINIMUM_STEPS = 100
WARMUP_TOKENS = 375_000_000
"""Warm-up of all models of Cerebras-GPT and BTLM, in whole steps."""
LARGEST_WARMUP_SHARE, SHORT_WARMUP_SHARE = Fraction(1, 4), Fraction(1, 10)
"""Share of the run for warm-up where the papers' warm-up exceeds a quarter of the run."""


@dataclass(frozen=True)
class Split:
    """A budget as parameters and tokens, before anything is rounded."""

    budget_flops: float
    parameters: float
    rule: str
    exponent: float = 0.5
    """The exponent of the budget by which parameters grow."""

    @property
    def tokens(self) -> float:
        """The number of tokens that the budget leaves."""
        return self.budget_flops / (6 * self.parameters)


@dataclass(frozen=True)
class Sizing:
    """The overrides that size a recipe to the budget."""

    split: Split
    overrides: tuple[str, ...]

    def record(self, sized: Plan) -> dict[str, Any]:
        """Return the choice as plain values. ``sized`` is the plan of the recipe with the
        overrides.
        """
        model, shapes, timeline = sized.recipe.model, sized.shapes, sized.timeline
        hidden = {
            entry.name.removeprefix("blocks.0."): entry.learning_rate_multiplier
            for entry in sized.table.tensors
            if entry.role is Role.HIDDEN and entry.name.startswith("blocks.0.")
        }
        return {
            "budget_flops": self.split.budget_flops,
            "convention": CONVENTION,
            "rule": self.split.rule,
            "ideal": {"parameters": self.split.parameters, "tokens": self.split.tokens},
            "parameters": shapes.parameters,
            "tokens": timeline.length,
            "tokens_per_parameter": timeline.length / shapes.parameters,
            "flops": 6.0 * shapes.parameters * timeline.length,
            "shape": {
                "n_layers": model.n_layers,
                "d_model": model.d_model,
                "n_heads": model.n_heads,
                "n_kv_heads": model.kv_heads,
                "head_dim": model.head_width,
                "d_ff": model.d_ff,
            },
            "aspect": model.d_model / model.n_layers,
            "batch_tokens": timeline.phases[0].stretches[0].step_length,
            "steps": timeline.steps,
            "warmup_steps": timeline.warmup_steps,
            "hidden_learning_rate_multipliers": hidden,
            "overrides": list(self.overrides),
        }


def split_by_rule(budget_flops: float, tokens_per_parameter: float) -> Split:
    """Split a budget by P = sqrt(C / 6k), D = k P.

    Raises UserError unless both arguments are finite and above 0.
    """
    _require_budget(budget_flops)
    if not (tokens_per_parameter > 0 and math.isfinite(tokens_per_parameter)):
        raise UserError("--tokens-per-parameter: must be above 0", found=tokens_per_parameter)
    parameters = math.sqrt(budget_flops / (6 * tokens_per_parameter))
    return Split(budget_flops, parameters, f"{tokens_per_parameter:g} tokens per parameter")


def split_by_law(budget_flops: float, law: ParametricLaw) -> Split:
    """Split a budget at the least loss of a law. Raises UserError unless the budget is above 0."""
    _require_budget(budget_flops)
    alpha, beta = law.parameter_exponent, law.token_exponent
    optimum = law.optimum(budget_flops)
    return Split(budget_flops, optimum.parameters, f"law {law.name}", beta / (alpha + beta))


def size_recipe(plan: Plan, split: Split) -> Sizing:
    """Return the shape, tokens, batch and schedule that ``split`` gives to the recipe of ``plan``.

    Raises UserError for a budget below that of the smallest legal shape, naming it, and for a
    schedule that cannot be scaled, and for a model with sparse_iso_flop.
    """
    if plan.recipe.model.sparse_iso_flop is not None:
        raise UserError(
            "model.sparse_iso_flop: --budget sizes dense shapes only",
            do="size the recipe without it (model.sparse_iso_flop=null), then add it to the dense "
            "shape",
        )
    model = _legal_shape(plan.recipe.model, split)
    parameters = model_shapes(model).parameters
    overrides = [
        f"model.{name}={getattr(model, name)}"
        for name in ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_ff")
        if getattr(model, name) is not None
    ]
    if plan.recipe.parametrization.block_output_init_std is not None:
        overrides.append("parametrization.block_output_init_std=null")  # it belongs to one depth
    tokens = int(split.budget_flops / (6 * parameters))
    growth = math.sqrt(parameters / plan.shapes.parameters)
    overrides += _phase_overrides(plan, tokens, growth)
    return Sizing(split, tuple(overrides))


def _require_budget(budget_flops: float) -> None:
    if not (budget_flops > 0 and math.isfinite(budget_flops)):
        raise UserError("--budget: must be above 0", found=budget_flops, allowed="as 1e18")


def _legal_shape(model: ModelSettings, split: Split) -> ModelSettings:
    """Return the shape with the least weighted distance from the wanted size and aspect."""
    best, best_score = None, math.inf
    for heads, layers, parameters in _candidates(model, split):
        size = math.log(parameters / split.parameters)
        aspect = math.log(_width(model, heads) / layers / ASPECT)
        if aspect > 0 and aspect**2 > best_score:
            break  # wider shapes have a larger aspect still
        score = SIZE_WEIGHT * size**2 + aspect**2
        if score < best_score:
            best, best_score = (heads, layers), score
    assert best is not None, "the smallest shape fits"
    return _resized(model, *best)


def _candidates(model: ModelSettings, split: Split) -> Iterator[tuple[int, int, int]]:
    """Yield heads, layers and parameters of shapes near the wanted size, by rising width."""
    group = model.n_heads // model.kv_heads
    heads = group
    while True:
        around, block = _counts(model, heads)
        if heads == group:
            _require_smallest(model, heads, around + block, split)
        elif around + block > 2 * split.parameters:
            return
        exact = (split.parameters - around) / block
        for layers in (max(1, math.ceil(exact)), max(1, math.floor(exact))):
            yield heads, layers, around + layers * block
        heads += group


def _require_smallest(model: ModelSettings, heads: int, parameters: int, split: Split) -> None:
    if split.parameters >= parameters:
        return
    needed = split.budget_flops * (parameters / split.parameters) ** (1 / split.exponent)
    raise UserError(
        f"--budget: {split.budget_flops:.4g} FLOPs are too few for the smallest legal shape, one "
        f"layer of d_model {_width(model, heads)} with {parameters:,} parameters",
        found=f"{split.parameters:,.0f} parameters by {split.rule}",
        allowed=f"at least {_rounded_up(needed):.4g} FLOPs",
        do="spend more, or shrink the vocabulary or head_dim",
    )


def _rounded_up(value: float) -> float:
    """Round to four digits, so that printed values reproduce the choice."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return math.ceil(value / unit) * unit


def _counts(model: ModelSettings, heads: int) -> tuple[int, int]:
    """Return the number of parameters outside the blocks, and in one block."""
    one, two = (model_shapes(_resized(model, heads, layers)).parameters for layers in (1, 2))
    return 2 * one - two, two - one


def _width(model: ModelSettings, heads: int) -> int:
    return round(Fraction(model.d_model * heads, model.n_heads))


def _resized(model: ModelSettings, heads: int, layers: int) -> ModelSettings:
    """Return the same kind of model with other sizes."""
    width = _width(model, heads)
    grain = math.gcd(model.d_ff, LARGEST_GRAIN)
    feed_forward = round(Fraction(model.d_ff * width, model.d_model) / grain) * grain
    key_heads = None if model.n_kv_heads is None else heads * model.n_kv_heads // model.n_heads
    return model.model_copy(
        update={
            "n_layers": layers,
            "d_model": width,
            "n_heads": heads,
            "n_kv_heads": key_heads,
            "d_ff": max(feed_forward, grain),
        }
    )


def _phase_overrides(plan: Plan, tokens: int, growth: float) -> Iterator[str]:
    """Return overrides of lengths, batches and schedules. Each phase keeps its share of the run."""
    old = plan.timeline
    lengths = [tokens * phase.length // old.length for phase in old.phases]
    batches = _batch_tokens(old.phases, growth, tokens // MINIMUM_STEPS)
    steps = []
    for phase, length, batch in zip(old.phases, lengths, batches, strict=True):
        sequences = max(batch // phase.context_length, 1)
        steps.append(sequences * phase.context_length)
        yield f"phases.{phase.index}.length={length} tokens"
        yield f"phases.{phase.index}.batch={{sequences: {sequences}}}"
    run = sum(length // step * step for length, step in zip(lengths, steps, strict=True))
    own = [plan.recipe.phases[phase.index] for phase in old.phases]
    warmup = _warmup_steps(lengths[0] if own[0].learning_rate else run, steps[0])
    for name in ("learning_rate", "weight_decay"):
        whole: Rate | None = None
        for phase, settings, length in zip(old.phases, own, lengths, strict=True):
            rate = getattr(phase, name)
            if getattr(settings, name) is None:
                whole = rate
                continue
            first = warmup if phase.index == 0 and name == "learning_rate" else None
            key = f"phases.{phase.index}.{name}"
            yield from scaled_schedule(key, rate.schedule, phase.length, length, first, steps[0])
        if whole is None:
            yield f"schedule.{name}=1.0"  # no phase reads it
        else:
            first = warmup if name == "learning_rate" and own[0].learning_rate is None else None
            key = f"schedule.{name}"
            yield from scaled_schedule(key, whole.schedule, old.length, run, first, steps[0])


def _batch_tokens(phases: tuple[PhasePlan, ...], growth: float, limit: int) -> Iterator[int]:
    """Return the tokens of a step, which grow with the square root of the model's size.

    The batches of Cerebras-GPT follow this rule.
    """
    longest = max(phase.context_length for phase in phases)
    for phase in phases:
        wanted = min(phase.length / phase.steps * growth, limit)
        grain = longest * (EVEN_SEQUENCES if wanted >= 2 * EVEN_SEQUENCES * longest else 1)
        yield max(round(wanted / grain), 1) * grain


def _warmup_steps(tokens: int, step_tokens: int) -> int:
    """Return the warm-up in tokens: the papers', or a tenth of a short run, in whole steps."""
    warmup = WARMUP_TOKENS
    if warmup > LARGEST_WARMUP_SHARE * tokens:
        warmup = int(SHORT_WARMUP_SHARE * tokens)
    return warmup // step_tokens


def sizing_warnings(plan: Plan, law: ParametricLaw | None) -> list[str]:
    """Warn of a learning rate or a law that may not hold. ``plan`` is that of the
    original recipe.
    """
    found = []
    settings = plan.recipe.parametrization
    if settings.type == "sp":
        found.append(
            f"sizing: sp does not carry the learning rate {settings.learning_rate:g} from "
            f"{plan.shapes.parameters:,} parameters to another size: tune it there, or use mup"
        )
    if law is not None and not law.verified:
        found.append(
            f"sizing: {law.name} has unverified constants and was fitted to {law.basis.data_set} "
            f"in {law.basis.tokenizer}: take its split as rough"
        )
    return found
