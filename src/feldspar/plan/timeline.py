"""The timeline of a run: for any number of tokens seen, the next step's phase, batch and rates.

Everything is a function of tokens. The update that takes the run from ``a`` to ``b`` tokens draws
its batch size at ``a`` and its learning rate and weight decay at ``b``: no step is spent at rate 0,
and the last one reaches the schedule's last value. A batch that follows the noise scale comes from
outside, as the pace; tokens and rates are known ahead all the same, the number of steps is not.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from feldspar.core.errors import UserError
from feldspar.plan.batches import Stretch, step_at_tokens, tokens_at_step, tokens_of_sequences
from feldspar.plan.phase_layout import lay_out_phases
from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.root import Recipe
from feldspar.recipe.schedules import CompiledSchedule, Schedule, compile_schedule
from feldspar.recipe.sections.batch import Batch
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch
from feldspar.recipe.sections.vision import ImageBatch
from feldspar.recipe.vision_root import VisionRecipe


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
    """Of a batch that follows the noise scale: the steps if it never left its minimum."""
    learning_rate: Rate
    weight_decay: Rate
    steering: NoiseScaleBatch | None = None

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
        """Optimizer steps of the phase, under a steered batch the most that there can be."""
        return sum(stretch.steps for stretch in self.stretches)

    @property
    def fewest_steps(self) -> int:
        """Optimizer steps of the phase if a steered batch were at its maximum from the start."""
        if self.steering is None:
            return self.steps
        return -(-self.sequences // self.largest_sequences)

    @property
    def largest_sequences(self) -> int:
        """The most sequences that a step can have."""
        if self.steering is not None:
            return int(self.steering.maximum.value)
        return max(stretch.sequences for stretch in self.stretches)

    @property
    def divisible_sequences(self) -> set[int]:
        """What the processes must divide, so that they divide each step."""
        if self.steering is not None:
            return {self.steering.quantum_sequences}
        return {stretch.sequences for stretch in self.stretches}

    @property
    def warmup_tokens(self) -> int:
        """Tokens of the phase until the first segment of its learning rate has risen."""
        rate = self.learning_rate
        return max(rate.offset_tokens + rate.schedule.warmup_tokens - self.start_tokens, 0)

    @property
    def sequences(self) -> int:
        """Sequences read in the phase."""
        return self.tokens // self.context_length


@dataclass(frozen=True)
class Pace:
    """What a steered phase takes a step, by the decisions so far."""

    sequences: int
    quantum: int
    """Each step is a multiple of so many sequences."""
    learning_rate_factor: float = 1.0


@dataclass(frozen=True)
class StepPlan:
    """The next optimizer step."""

    phase: PhasePlan
    tokens_before: int
    tokens_after: int
    """Tokens seen once the step is done."""
    first_sequence: int
    sequences: int
    learning_rate: float
    weight_decay: float


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
        """Optimizer steps of the run, under a steered batch the most that there can be."""
        return self.phases[-1].start_step + self.phases[-1].steps

    @property
    def fewest_steps(self) -> int:
        """Optimizer steps of the run if steered batches were at their maximum from the start."""
        return sum(phase.fewest_steps for phase in self.phases)

    @property
    def warmup_steps(self) -> int:
        """Steps of the first rising segment of the learning rate."""
        first = self.phases[0]
        return step_at_tokens(first.stretches, first.learning_rate.schedule.warmup_tokens)

    def phase_at(self, tokens: int) -> PhasePlan:
        """The phase that the step after ``tokens`` belongs to."""
        index = bisect_right(self.phases, tokens, key=lambda phase: phase.start_tokens) - 1
        return self.phases[index]

    def next_step(self, tokens: int, pace: Pace | None = None) -> StepPlan | None:
        """The step that follows once ``tokens`` were seen; None at the end of the run.

        ``pace`` is that of a steered phase; None: the one that it begins with.
        """
        if tokens >= self.tokens:
            return None
        phase = self.phase_at(tokens)
        inside = tokens - phase.start_tokens
        factor = 1.0
        if phase.steering is None:
            index = bisect_right(phase.stretches, inside, key=lambda item: item.start_tokens) - 1
            sequences = phase.stretches[index].sequences
            after = tokens + phase.stretches[index].tokens_per_step
        else:
            pace = pace or Pace(phase.stretches[0].sequences, phase.steering.quantum_sequences)
            left = (phase.tokens - inside) // phase.context_length
            sequences = min(pace.sequences, left // pace.quantum * pace.quantum)
            if sequences == 0:
                return self.next_step(phase.end_tokens)
            after = tokens + sequences * phase.context_length
            if left - sequences < pace.quantum:
                after = phase.end_tokens
            factor = pace.learning_rate_factor
        return StepPlan(
            phase=phase,
            tokens_before=tokens,
            tokens_after=after,
            first_sequence=inside // phase.context_length,
            sequences=sequences,
            learning_rate=factor * phase.learning_rate.at(after),
            weight_decay=phase.weight_decay.at(after),
        )

    def interval_tokens(self, amount: Amount, phase: PhasePlan, key: str) -> int:
        """Tokens of a repeated interval (``checkpoints.every``) inside ``phase``, at least 1."""
        per_step = phase.stretches[0].tokens_per_step
        match amount.unit:
            case Unit.TOKENS | Unit.IMAGES:
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
    recipe: Recipe | VisionRecipe, parameters: int, source_tokens: Mapping[str, int] | None = None
) -> Timeline:
    """Lay out a recipe's phases; what is said of tokens holds of images in a vision recipe.

    ``parameters`` counts all of them, tied ones once; ``source_tokens`` (training tokens of each
    source) is needed where an amount counts epochs. Raises UserError that names the key.
    """
    laid_out = lay_out_phases(recipe, parameters, source_tokens)
    run_stretches = _joined(laid_out)
    total = run_stretches[-1].end_tokens
    steered = [_steering(settings.batch) for settings in recipe.phases]

    def measure_run(amount: Amount, start: int) -> int:
        if any(steered):
            _refuse_steps(amount, "schedule")
        return _measure(amount, start, run_stretches, total, total, parameters)

    def laid_over_run(own: Schedule, name: str) -> CompiledSchedule:
        return compile_schedule(own, total, measure_run, f"schedule.{name}", recipe.counted)

    run_rate = laid_over_run(recipe.schedule.learning_rate, "learning_rate")
    run_decay = laid_over_run(recipe.schedule.weight_decay, "weight_decay")
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
            steering: NoiseScaleBatch | None = steered[index],
        ) -> Rate:
            if own is None:
                return Rate(whole, peak, 0)
            length = stretches[-1].end_tokens

            def measure(amount: Amount, start: int) -> int:
                if steering is not None:
                    _refuse_steps(amount, f"{key}.{name}")
                return _measure(amount, start, stretches, length, total, parameters)

            laid = compile_schedule(own, length, measure, f"{key}.{name}", recipe.counted)
            return Rate(laid, 1.0, offset)

        phase = PhasePlan(
            index=index,
            name=settings.name,
            context_length=recipe.context_lengths[index],
            start_tokens=start_tokens,
            start_step=start_step,
            stretches=stretches,
            learning_rate=rate(
                settings.learning_rate,
                run_rate,
                recipe.peak_learning_rate,
                "learning_rate",
            ),
            weight_decay=rate(
                settings.weight_decay, run_decay, recipe.optimizer.weight_decay, "weight_decay"
            ),
            steering=steered[index],
        )
        phases.append(phase)
        start_tokens += phase.tokens
        start_step += phase.steps
    return Timeline(tuple(phases), parameters)


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


def _steering(batch: Batch | ImageBatch) -> NoiseScaleBatch | None:
    return batch if isinstance(batch, NoiseScaleBatch) else None


def _refuse_steps(amount: Amount, key: str) -> None:
    if amount.unit is Unit.STEPS:
        raise UserError(
            f"{key}: how long {amount} last is not known ahead where a batch follows the noise "
            "scale",
            do="give the segment's length in tokens, or as a share of the run",
        )


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
        case Unit.TOKENS | Unit.IMAGES:
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
