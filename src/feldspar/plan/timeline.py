"""The timeline of a run: at any position, the next step's phase, batch and rates.

A position counts what the run has seen, in the timeline's unit: tokens or images. Lengths are
differences of positions. Everything is a function of the position. The update that takes the run
from position ``a`` to ``b`` draws its batch size at ``a`` and its learning rate and weight decay at
``b``: no step is spent at rate 0, and the last one reaches the schedule's last value. A batch that
follows the noise scale comes from outside, as the pace; positions and rates are known ahead all the
same, the number of steps is not.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from feldspar.core.errors import UserError
from feldspar.plan.batches import Stretch, length_of_sequences, position_at_step, step_at
from feldspar.plan.phase_layout import lay_out_phases
from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.root import Recipe
from feldspar.recipe.schedules import CompiledSchedule, Schedule, compile_schedule
from feldspar.recipe.sections.batch import Batch
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch
from feldspar.recipe.sections.vision import ImageBatch
from feldspar.recipe.top import PositionUnit
from feldspar.recipe.vision_root import VisionRecipe


@dataclass(frozen=True)
class Rate:
    """A schedule that begins at the position ``offset``, times a peak."""

    schedule: CompiledSchedule
    peak: float
    offset: int

    def at(self, position: int) -> float:
        """Return the value at a position of the run."""
        return self.peak * self.schedule.at(position - self.offset)


@dataclass(frozen=True)
class PhasePlan:
    """One phase: its place on the timeline, its steps and its rates."""

    index: int
    name: str
    context_length: int
    """Length of one sequence; an image has length 1."""
    start_position: int
    start_step: int
    stretches: tuple[Stretch, ...]
    """Steps of equal batches. A batch by noise scale is laid out at its minimum."""
    learning_rate: Rate
    weight_decay: Rate
    steering: NoiseScaleBatch | None = None

    @property
    def length(self) -> int:
        """Length of the phase."""
        return self.stretches[-1].end_position

    @property
    def end_position(self) -> int:
        """Position of the run when the phase ends."""
        return self.start_position + self.length

    @property
    def steps(self) -> int:
        """Optimizer steps of the phase. Of a steered batch this is the most."""
        return sum(stretch.steps for stretch in self.stretches)

    @property
    def fewest_steps(self) -> int:
        """Optimizer steps of the phase if a steered batch were at its maximum from the start."""
        if self.steering is None:
            return self.steps
        return -(-self.sequences // self.largest_sequences)

    @property
    def largest_sequences(self) -> int:
        """The largest number of sequences in a step."""
        if self.steering is not None:
            return int(self.steering.maximum.value)
        return max(stretch.sequences for stretch in self.stretches)

    @property
    def divisible_sequences(self) -> set[int]:
        """Numbers that the number of processes must divide, so that it divides each step."""
        if self.steering is not None:
            return {self.steering.quantum_sequences}
        return {stretch.sequences for stretch in self.stretches}

    @property
    def warmup_length(self) -> int:
        """Length of the phase until the first segment of its learning rate has risen."""
        rate = self.learning_rate
        return max(rate.offset + rate.schedule.warmup_length - self.start_position, 0)

    @property
    def sequences(self) -> int:
        """Sequences (or images) read in the phase."""
        return self.length // self.context_length


@dataclass(frozen=True)
class Pace:
    """The state of a steered phase by the decisions so far: batch and rate."""

    sequences: int
    quantum: int
    """Each step's sequences are a multiple of this number."""
    learning_rate_factor: float = 1.0


@dataclass(frozen=True)
class StepPlan:
    """The next optimizer step."""

    phase: PhasePlan
    position_before: int
    position_after: int
    """Position once the step is done."""
    first_sequence: int
    """Number of the step's first sequence within the phase."""
    sequences: int
    """Sequences (or images) of the step."""
    learning_rate: float
    weight_decay: float

    @property
    def length(self) -> int:
        """Tokens (or images) of the step."""
        return self.position_after - self.position_before


@dataclass(frozen=True)
class Timeline:
    """All phases, and conversions between positions and steps of the whole run."""

    phases: tuple[PhasePlan, ...]
    parameters: int
    unit: PositionUnit = "tokens"
    """Unit of all positions and lengths."""

    @property
    def length(self) -> int:
        """Length of the run: the position at which it ends."""
        return self.phases[-1].end_position

    @property
    def steps(self) -> int:
        """Optimizer steps of the run. With a steered batch this is the most."""
        return self.phases[-1].start_step + self.phases[-1].steps

    @property
    def fewest_steps(self) -> int:
        """Optimizer steps of the run if steered batches were at their maximum from the start."""
        return sum(phase.fewest_steps for phase in self.phases)

    @property
    def warmup_steps(self) -> int:
        """Steps of the first rising segment of the learning rate."""
        first = self.phases[0]
        return step_at(first.stretches, first.learning_rate.schedule.warmup_length)

    def phase_at(self, position: int) -> PhasePlan:
        """Return the phase that the step after ``position`` belongs to."""
        index = bisect_right(self.phases, position, key=lambda phase: phase.start_position) - 1
        return self.phases[index]

    def next_step(self, position: int, pace: Pace | None = None) -> StepPlan | None:
        """Return the step that begins at ``position``; None at the end of the run.

        ``pace`` is the pace of a steered phase; None means the pace at which the phase begins.
        """
        if position >= self.length:
            return None
        phase = self.phase_at(position)
        inside = position - phase.start_position
        factor = 1.0
        if phase.steering is None:
            index = bisect_right(phase.stretches, inside, key=lambda item: item.start_position) - 1
            sequences = phase.stretches[index].sequences
            after = position + phase.stretches[index].step_length
        else:
            pace = pace or Pace(phase.stretches[0].sequences, phase.steering.quantum_sequences)
            left = (phase.length - inside) // phase.context_length
            sequences = min(pace.sequences, left // pace.quantum * pace.quantum)
            if sequences == 0:
                return self.next_step(phase.end_position)
            after = position + sequences * phase.context_length
            if left - sequences < pace.quantum:
                after = phase.end_position
            factor = pace.learning_rate_factor
        return StepPlan(
            phase=phase,
            position_before=position,
            position_after=after,
            first_sequence=inside // phase.context_length,
            sequences=sequences,
            learning_rate=factor * phase.learning_rate.at(after),
            weight_decay=phase.weight_decay.at(after),
        )

    def known_next(self, step: StepPlan) -> StepPlan | None:
        """Return the step after ``step``."""
        return self.next_step(step.position_after)

    def interval(self, amount: Amount, phase: PhasePlan, key: str) -> int:
        """Return the length, at least 1, of a repeated interval such as checkpoints.every.

        Raises UserError, which names ``key``, for an amount that cannot be repeated.
        """
        per_step = phase.stretches[0].step_length
        match amount.unit:
            case Unit.TOKENS | Unit.IMAGES:
                length = int(amount.value)
            case Unit.STEPS:
                length = int(amount.value) * per_step
            case Unit.SEQUENCES:
                length = int(amount.value) * phase.context_length
            case Unit.TOKENS_PER_PARAMETER:
                length = int(amount.value * self.parameters)
            case Unit.PERCENT_OF_RUN:
                length = int(amount.value * self.length / 100)
            case Unit.PERCENT_OF_PHASE:
                length = int(amount.value * phase.length / 100)
            case _:
                raise UserError(
                    f"{key}: {amount} is not an interval", allowed=f"{self.unit}, steps, % of run"
                )
        return max(length, 1)

    def place(self, amount: Amount, phase: PhasePlan, key: str) -> int:
        """Return the position, counted from the phase's start, that an amount after it lies at.

        Raises UserError, which names ``key``, for an amount whose length is not known.
        """
        if amount.unit is Unit.EPOCHS:
            raise UserError(f"{key}: {amount} is not a position in a phase", allowed="% of phase")
        if phase.steering is not None and amount.value > 0:
            _refuse_steps(amount, key)
        stretches, total = phase.stretches, self.length
        return _measure(amount, 0, stretches, phase.length, total, self.parameters)


def build_timeline(
    recipe: Recipe | VisionRecipe, parameters: int, source_sizes: Mapping[str, int] | None = None
) -> Timeline:
    """Lay out a recipe's phases.

    ``parameters`` counts all of them, tied ones once. ``source_sizes`` (training tokens or images
    of each source) is needed where an amount counts epochs. Raises UserError that names the key.
    """
    laid_out = lay_out_phases(recipe, parameters, source_sizes)
    run_stretches = _joined(laid_out)
    total = run_stretches[-1].end_position
    unit = recipe.position_unit
    steered = [_steering(settings.batch) for settings in recipe.phases]

    def measure_run(amount: Amount, start: int) -> int:
        if any(steered):
            _refuse_steps(amount, "schedule")
        return _measure(amount, start, run_stretches, total, total, parameters)

    def laid_over_run(own: Schedule, name: str) -> CompiledSchedule:
        return compile_schedule(own, total, measure_run, f"schedule.{name}", unit)

    run_rate = laid_over_run(recipe.schedule.learning_rate, "learning_rate")
    run_decay = laid_over_run(recipe.schedule.weight_decay, "weight_decay")
    phases: list[PhasePlan] = []
    start_position = start_step = 0
    for index, (settings, stretches) in enumerate(zip(recipe.phases, laid_out, strict=True)):

        def rate(
            own: Schedule | None,
            whole: CompiledSchedule,
            peak: float,
            name: str,
            stretches: tuple[Stretch, ...] = stretches,
            offset: int = start_position,
            key: str = f"phases.{index}",
            steering: NoiseScaleBatch | None = steered[index],
        ) -> Rate:
            if own is None:
                return Rate(whole, peak, 0)
            length = stretches[-1].end_position

            def measure(amount: Amount, start: int) -> int:
                if steering is not None:
                    _refuse_steps(amount, f"{key}.{name}")
                return _measure(amount, start, stretches, length, total, parameters)

            laid = compile_schedule(own, length, measure, f"{key}.{name}", unit)
            return Rate(laid, 1.0, offset)

        phase = PhasePlan(
            index=index,
            name=settings.name,
            context_length=recipe.context_lengths[index],
            start_position=start_position,
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
            steering=steered[index],
        )
        phases.append(phase)
        start_position = phase.end_position
        start_step += phase.steps
    return Timeline(tuple(phases), parameters, unit)


def _joined(laid_out: list[tuple[Stretch, ...]]) -> tuple[Stretch, ...]:
    """Join the stretches of all phases, with positions counted from the run's start."""
    joined: list[Stretch] = []
    step = position = 0
    for stretches in laid_out:
        for item in stretches:
            joined.append(Stretch(step, position, item.steps, item.sequences, item.step_length))
            step += item.steps
            position += item.steps * item.step_length
    return tuple(joined)


def _steering(batch: Batch | ImageBatch) -> NoiseScaleBatch | None:
    return batch if isinstance(batch, NoiseScaleBatch) else None


def _refuse_steps(amount: Amount, key: str) -> None:
    if amount.unit is Unit.STEPS:
        raise UserError(
            f"{key}: the length of {amount} is unknown in advance where a batch follows the noise "
            "scale",
            do="give it in tokens, or as a share of the run",
        )


def _measure(
    amount: Amount,
    start: int,
    stretches: tuple[Stretch, ...],
    length: int,
    total: int,
    parameters: int,
) -> int:
    """Return the length of an amount that begins at ``start``, within steps of ``length``."""
    match amount.unit:
        case Unit.TOKENS | Unit.IMAGES:
            return int(amount.value)
        case Unit.STEPS:
            end = position_at_step(stretches, step_at(stretches, start) + int(amount.value))
            return max(end - start, 0)
        case Unit.SEQUENCES:
            return length_of_sequences(stretches, start, int(amount.value))
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
