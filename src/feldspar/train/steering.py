"""Batches that follow the noise scale during a run. Each steered phase has a controller.

All processes agree on each batch.
"""

import math
from typing import Any

from feldspar.core.errors import RunError
from feldspar.core.progress import say
from feldspar.noise_scale.control.controller import BatchController, Reading
from feldspar.plan.batches import check_divides
from feldspar.plan.noise_scale import steering_of
from feldspar.plan.summary import Plan
from feldspar.plan.timeline import Pace, StepPlan
from feldspar.runtime.collectives import gather_json
from feldspar.train.gradient_noise import GradientNoise
from feldspar.train.trainer import Observer, TakenStep, Trainer


class StepTimes:
    """Seconds of steps by batch size, and a line fitted to them: fixed + slope x sequences."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[int, float]] = {}
        self._seen: set[int] = set()

    def add(self, sequences: int, seconds: float) -> None:
        """Add the time of a step. The first step of a size is ignored, because it may compile."""
        if sequences in self._seen:
            count, total = self._sums.get(sequences, (0, 0.0))
            self._sums[sequences] = (count + 1, total + seconds)
        self._seen.add(sequences)

    @property
    def overhead(self) -> float | None:
        """The fixed part, as a number of sequences. None until a rising line can be fitted."""
        if len(self._sums) < 2:
            return None
        points = [(size, total / count, count) for size, (count, total) in self._sums.items()]
        weight = sum(count for *_, count in points)
        mean_size = sum(size * count for size, _, count in points) / weight
        mean_time = sum(time * count for _, time, count in points) / weight
        spread = sum(count * (size - mean_size) ** 2 for size, _, count in points)
        slope = sum(count * (size - mean_size) * time for size, time, count in points) / spread
        return max(mean_time / slope - mean_size, 0.0) if slope > 0 else None

    def state(self) -> dict[str, Any]:
        """Return the entries of a checkpoint, as JSON."""
        return {str(size): list(sums) for size, sums in self._sums.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._sums = {int(size): (int(n), float(total)) for size, (n, total) in state.items()}


class Steering(Observer):
    """The order of steps of a run, where each steered phase has the pace that ``noise`` sets.

    Raises UserError where the number of processes does not divide a quantum. A resumed run instead
    uses multiples of both from then on, with a warning.
    """

    def __init__(
        self, plan: Plan, world_size: int, resumed: bool, noise: GradientNoise | None = None
    ) -> None:
        self._noise = noise
        self._timeline = plan.timeline
        self._controllers: dict[int, BatchController] = {}
        self._times: dict[int, StepTimes] = {}
        for phase in plan.timeline.phases:
            if phase.steering is None:
                continue
            key = f"phases.{phase.index}.batch"
            quantum = phase.steering.quantum_sequences
            if not resumed:
                check_divides(quantum, world_size, key)
            elif quantum % world_size:
                joint = math.lcm(quantum, world_size)
                say(
                    f"warning: {key}: {world_size} processes do not divide {quantum} sequences; "
                    f"from here on batches are multiples of {joint}, and less than that may be "
                    "left out at the phase's end"
                )
                quantum = joint
            self._controllers[phase.index] = steering_of(plan.recipe, phase, plan.timeline, quantum)
            self._times[phase.index] = StepTimes()

    def pace(self, position: int) -> Pace | None:
        """Return the pace of the phase at ``position``; None where its batch is not steered."""
        controller = self._controllers.get(self._timeline.phase_at(position).index)
        if controller is None:
            return None
        return Pace(controller.sequences, controller.quantum, controller.learning_rate_factor)

    def next_step(self, position: int) -> StepPlan | None:
        """Return the step that begins at ``position``, at the pace decided so far."""
        return self._timeline.next_step(position, self.pace(position))

    def known_next(self, step: StepPlan) -> StepPlan | None:
        """Return the step after ``step``; None before a decision, which may change its batch."""
        return None if self.due(step) else self.next_step(step.position_after)

    def after_step(self, trainer: Trainer, step: TakenStep) -> None:
        """Take the decision that is due, record it, and report it if it changes the batch."""
        if self._noise is None:
            return
        self.observe(step.plan, step.seconds)
        if self.due(step.plan):
            decided = self.decide(step.plan, self._noise.reading())
            step.record |= decided
            if decided["batch/action"] != "hold":
                trainer.event("batch", before=step.plan.sequences, **decided)

    def due(self, step: StepPlan) -> bool:
        """Tell whether a decision follows the step, so that the next step is not yet known."""
        controller = self._controllers.get(step.phase.index)
        start = step.phase.start_position
        return controller is not None and controller.due(
            step.position_before - start, step.position_after - start
        )

    def observe(self, step: StepPlan, seconds: float) -> None:
        """Add the time of a step."""
        if step.phase.index in self._times:
            self._times[step.phase.index].add(step.sequences, seconds)

    def decide(self, step: StepPlan, reading: Reading) -> dict[str, Any]:
        """Take the decision that is due after ``step``; return its record for metrics.jsonl.

        Each process calls this. Raises RunError when they do not come to the same batch.
        """
        index = step.phase.index
        controller = self._controllers[index]
        overhead = None
        if controller.settings.objective == "time":
            overhead = gather_json(self._times[index].overhead)[0]
        tokens = step.position_after - step.phase.start_position
        decision = controller.decide(tokens, reading, overhead)
        require_agreement([int(after) for after in gather_json(decision.after)])
        known = {} if overhead is None else {"batch/overhead_sequences": overhead}
        return decision.record() | known

    def state(self) -> dict[str, Any]:
        """Return the controllers and the times of steps, by phase."""
        kept = {
            str(index): {"batch": controller.state(), "times": self._times[index].state()}
            for index, controller in self._controllers.items()
        }
        return {"steering": kept}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        kept = state["steering"]
        for index, controller in self._controllers.items():
            if str(index) in kept:
                controller.load_state(kept[str(index)]["batch"])
                self._times[index].load_state(kept[str(index)]["times"])


def require_agreement(batches: list[int]) -> None:
    """Raise RunError unless each process (in order of rank) has the same next batch."""
    other = next((rank for rank, batch in enumerate(batches) if batch != batches[0]), None)
    if other is not None:
        raise RunError(
            f"the processes disagree on the next batch: {batches[0]} sequences on rank 0, "
            f"{batches[other]} on rank {other}",
            do="resume from the last checkpoint; if it happens again, look for a process with "
            "other software or a broken device",
        )
