"""The timeline of a run: for any number of tokens seen, the next step's phase, batch and rates.

Everything is a function of tokens. The update that takes the run from ``a`` to ``b`` tokens draws
its batch size at ``a`` and its learning rate and weight decay at ``b``: no step is spent at rate 0,
and the last one reaches the schedule's last value.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from feldspar.core.errors import UserError
from feldspar.plan.batches import (
    Stretch,
    batch_levels,
    lay_out,
    step_at_tokens,
    tokens_at_step,
    tokens_of_sequences,
)
from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.root import Recipe
from feldspar.recipe.schedules import CompiledSchedule, Schedule, compile_schedule
from feldspar.train.settings import Batch, ConstantBatch, PhaseSettings


@dataclass(frozen=True)
class Rate:
    """A schedule laid from ``offset_tokens`` on, times a peak."""

    schedule: CompiledSchedule
    peak: float
    offset_tokens: int

    def at(self, tokens: int) -> float:
        """The value once the run has seen ``tokens``."""
        return self.peak * self.schedule.at(tokens - self.offset_tokens)


@dataclass(frozen=True)
class PhasePlan:
    """One phase in tokens and steps of the run."""

    index: int
    name: str
    context_length: int
    start_tokens: int
    start_step: int
    stretches: tuple[Stretch, ...]
    learning_rate: Rate
    weight_decay: Rate

    @property
    def tokens(self) -> int:
        """Tokens of the phase."""
        return self.stretches[-1].end_tokens

    @property
    def end_tokens(self) -> int:
        """Tokens of the run when the phase ends."""
        return self.start_tokens + self.tokens

    @property
    def steps(self) -> int:
        """Optimizer steps of the phase."""
        return sum(stretch.steps for stretch in self.stretches)

    @property
    def sequences(self) -> int:
        """Sequences read in the phase."""
        return self.tokens // self.context_length


@dataclass(frozen=True)
class StepPlan:
    """The next optimizer step."""

    phase: PhasePlan
    step: int
    tokens_before: int
    first_sequence: int
    sequences: int
    learning_rate: float
    weight_decay: float

    @property
    def tokens_after(self) -> int:
        """Tokens seen once the step is done."""
        return self.tokens_before + self.sequences * self.phase.context_length


@dataclass(frozen=True)
class Timeline:
    """All phases, and conversions between tokens and steps of the whole run."""

    phases: tuple[PhasePlan, ...]
    parameters: int

    @property
    def tokens(self) -> int:
        """Tokens of the run."""
        return self.phases[-1].end_tokens

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return self.phases[-1].start_step + self.phases[-1].steps

    @property
    def warmup_steps(self) -> int:
        """Steps of the first rising segment of the learning rate."""
        first = self.phases[0]
        return step_at_tokens(first.stretches, first.learning_rate.schedule.warmup_tokens)

    def phase_at(self, tokens: int) -> PhasePlan:
        """The phase that the step after ``tokens`` belongs to."""
        index = bisect_right(self.phases, tokens, key=lambda phase: phase.start_tokens) - 1
        return self.phases[index]

    def next_step(self, tokens: int) -> StepPlan | None:
        """The step that follows once ``tokens`` were seen; None at the end of the run."""
        if tokens >= self.tokens:
            return None
        phase = self.phase_at(tokens)
        inside = tokens - phase.start_tokens
        index = bisect_right(phase.stretches, inside, key=lambda item: item.start_tokens) - 1
        stretch = phase.stretches[index]
        step = stretch.start_step + (inside - stretch.start_tokens) // stretch.tokens_per_step
        after = tokens + stretch.tokens_per_step
        return StepPlan(
            phase=phase,
            step=phase.start_step + step,
            tokens_before=tokens,
            first_sequence=inside // phase.context_length,
            sequences=stretch.sequences,
            learning_rate=phase.learning_rate.at(after),
            weight_decay=phase.weight_decay.at(after),
        )

    def interval_tokens(self, amount: Amount, phase: PhasePlan, key: str) -> int:
        """Tokens of a repeated interval (``checkpoints.every``) inside ``phase``, at least 1."""
        per_step = phase.stretches[0].tokens_per_step
        match amount.unit:
            case Unit.TOKENS:
                tokens = int(amount.value)
            case Unit.STEPS:
                tokens = int(amount.value) * per_step
            case Unit.SEQUENCES:
                tokens = int(amount.value) * phase.context_length
            case Unit.TOKENS_PER_PARAMETER:
                tokens = int(amount.value * self.parameters)
            case Unit.PERCENT_OF_RUN:
                tokens = int(amount.value * self.tokens / 100)
            case Unit.PERCENT_OF_PHASE:
                tokens = int(amount.value * phase.tokens / 100)
            case _:
                raise UserError(
                    f"{key}: {amount} is no interval", allowed="tokens, steps, % of run"
                )
        return max(tokens, 1)


def build_timeline(
    recipe: Recipe, parameters: int, source_tokens: Mapping[str, int] | None = None
) -> Timeline:
    """Lay out a recipe's phases.

    ``parameters`` counts all of them, tied ones once; ``source_tokens`` (training tokens of each
    source) is needed where an amount counts epochs. Raises UserError that names the key.
    """
    laid_out = _lay_out_phases(recipe, parameters, source_tokens)
    run_stretches = _joined(laid_out)
    total = run_stretches[-1].end_tokens

    def measure_run(amount: Amount, start: int) -> int:
        return _measure(amount, start, run_stretches, total, total, parameters)

    schedule = recipe.schedule
    run_rate = compile_schedule(
        schedule.learning_rate, total, measure_run, "schedule.learning_rate"
    )
    run_decay = compile_schedule(schedule.weight_decay, total, measure_run, "schedule.weight_decay")
    phases: list[PhasePlan] = []
    start_tokens = start_step = 0
    for index, (settings, stretches) in enumerate(zip(recipe.phases, laid_out, strict=True)):

        def rate(
            own: Schedule | None,
            whole: CompiledSchedule,
            peak: float,
            name: str,
            stretches: tuple[Stretch, ...] = stretches,
            offset: int = start_tokens,
            key: str = f"phases.{index}",
        ) -> Rate:
            if own is None:
                return Rate(whole, peak, 0)
            length = stretches[-1].end_tokens
            measure = _phase_measure(stretches, length, total, parameters)
            return Rate(compile_schedule(own, length, measure, f"{key}.{name}"), 1.0, offset)

        phase = PhasePlan(
            index=index,
            name=settings.name,
            context_length=recipe.context_length(settings),
            start_tokens=start_tokens,
            start_step=start_step,
            stretches=stretches,
            learning_rate=rate(
                settings.learning_rate,
                run_rate,
                recipe.parametrization.learning_rate,
                "learning_rate",
            ),
            weight_decay=rate(
                settings.weight_decay, run_decay, recipe.optimizer.weight_decay, "weight_decay"
            ),
        )
        phases.append(phase)
        start_tokens += phase.tokens
        start_step += phase.steps
    return Timeline(tuple(phases), parameters)


def _lay_out_phases(
    recipe: Recipe, parameters: int, source_tokens: Mapping[str, int] | None
) -> list[tuple[Stretch, ...]]:
    laid_out = []
    for index, settings in enumerate(recipe.phases):
        key = f"phases.{index}"
        context = recipe.context_length(settings)
        levels = batch_levels(settings.batch, context, f"{key}.batch")
        limit = _length_limit(settings, context, parameters, source_tokens, key)
        stretches = lay_out(levels, context, **limit)
        if not stretches:
            raise UserError(
                f"{key}.length: {settings.length} is less than one step of "
                f"{levels[0].sequences * context:,} tokens"
            )
        if laid_out and settings.optimizer_state is None:
            before = recipe.phases[index - 1].batch
            _require_same_batch(before, laid_out[-1][-1], settings.batch, stretches[0], key)
        laid_out.append(stretches)
    return laid_out


def _require_same_batch(
    batch_before: Batch, before: Stretch, batch_after: Batch, after: Stretch, key: str
) -> None:
    """Moments and learning rates belong to a number of tokens a step: to change it is a decision.

    Two batches of the same tokens may differ by what is rounded down to whole sequences.
    """
    asked = [
        batch.tokens if isinstance(batch, ConstantBatch) and batch.tokens else item.tokens_per_step
        for batch, item in ((batch_before, before), (batch_after, after))
    ]
    if before.tokens_per_step != after.tokens_per_step and asked[0] != asked[1]:
        raise UserError(
            f"{key}.batch: a step of this phase has {after.tokens_per_step:,} tokens, one of the "
            f"phase before {before.tokens_per_step:,}",
            do=f"keep the tokens of a step, or say {key}.optimizer_state: keep (or fresh)",
        )


def _length_limit(
    settings: PhaseSettings,
    context_length: int,
    parameters: int,
    source_tokens: Mapping[str, int] | None,
    key: str,
) -> dict[str, int]:
    amount = settings.length
    match amount.unit:
        case Unit.STEPS:
            return {"limit_steps": int(amount.value)}
        case Unit.TOKENS:
            return {"limit_tokens": int(amount.value)}
        case Unit.SEQUENCES:
            return {"limit_tokens": int(amount.value) * context_length}
        case Unit.TOKENS_PER_PARAMETER:
            return {"limit_tokens": int(amount.value * parameters)}
        case _:
            if settings.mixture != "natural":
                raise UserError(f"{key}.length: {amount} needs mixture: natural")
            if not source_tokens:
                raise UserError(
                    f"{key}.length: {amount} needs the size of the sources",
                    do="build the shards, or declare corpus.sources.NAME.tokens",
                )
            return {"limit_tokens": int(amount.value * sum(source_tokens.values()))}


def _joined(laid_out: list[tuple[Stretch, ...]]) -> tuple[Stretch, ...]:
    """All phases' stretches with positions counted from the run's start."""
    joined: list[Stretch] = []
    step = tokens = 0
    for stretches in laid_out:
        for item in stretches:
            joined.append(Stretch(step, tokens, item.steps, item.sequences, item.tokens_per_step))
            step += item.steps
            tokens += item.steps * item.tokens_per_step
    return tuple(joined)


def _phase_measure(
    stretches: tuple[Stretch, ...], length: int, total: int, parameters: int
) -> Callable[[Amount, int], int]:
    return lambda amount, start: _measure(amount, start, stretches, length, total, parameters)


def _measure(
    amount: Amount,
    start: int,
    stretches: tuple[Stretch, ...],
    length: int,
    total: int,
    parameters: int,
) -> int:
    """Tokens of an amount that begins at ``start`` within ``length`` tokens of steps."""
    match amount.unit:
        case Unit.TOKENS:
            return int(amount.value)
        case Unit.STEPS:
            end = tokens_at_step(stretches, step_at_tokens(stretches, start) + int(amount.value))
            return max(end - start, 0)
        case Unit.SEQUENCES:
            return tokens_of_sequences(stretches, start, int(amount.value))
        case Unit.TOKENS_PER_PARAMETER:
            return int(amount.value * parameters)
        case Unit.PERCENT_OF_RUN:
            return int(amount.value * total / 100)
        case Unit.PERCENT_OF_PHASE:
            return int(amount.value * length / 100)
        case Unit.REST:
            return length - start
        case Unit.EPOCHS:
            raise AssertionError("compile_schedule refuses epochs")
