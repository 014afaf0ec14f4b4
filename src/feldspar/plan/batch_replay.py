"""The decisions on a run's batches, taken again from its log: the same, or under other rules."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from feldspar.noise_scale.control.controller import Decision, Reading
from feldspar.plan.noise_scale import steering_of
from feldspar.plan.summary import Plan


@dataclass(frozen=True)
class Replayed:
    """A decision as taken again and the batch that the run took instead of it, if another."""

    phase: str
    step: int
    tokens: int
    decision: Decision
    recorded: int | None
    """The batch that the run decided on there; None where its own rules decided nothing."""

    @property
    def agrees(self) -> bool:
        """Whether the run took the same batch."""
        return self.recorded == self.decision.after


@dataclass
class Replay:
    """All decisions in order, and about how many steps each phase takes at their batches."""

    decisions: list[Replayed] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)


def reading_of(record: Mapping[str, Any]) -> Reading:
    """Return the model's noise scale as a record of metrics.jsonl has it."""
    key = "noise_scale/total"
    return Reading(float(record[key]), float(record[f"{key}/low"]), float(record[f"{key}/high"]))


def replay_batches(plan: Plan, records: Iterable[Mapping[str, Any]]) -> Replay:
    """Return every decision of the steered phases of ``plan``, from the ``records`` of a run.

    ``plan`` may have other rules than the run had, or a batch that was not steered at all: its
    decisions are then those that would have been taken on the run's noise scale, as if the batch
    had not changed that.
    """
    phases = {phase.name: phase for phase in plan.timeline.phases if phase.steering is not None}
    controllers = {
        name: steering_of(plan.recipe, phase, plan.timeline) for name, phase in phases.items()
    }
    replay = Replay(steps=dict.fromkeys(phases, 0.0))
    position = 0
    for record in records:
        before, position = position, int(record["tokens"])
        name = record["phase"]
        if name not in phases:
            continue
        start, length = phases[name].start_position, phases[name].context_length
        replay.steps[name] += (position - before) / length / controllers[name].sequences
        if not controllers[name].due(before - start, position - start):
            continue
        overhead = record.get("batch/overhead_sequences")
        decision = controllers[name].decide(position - start, reading_of(record), overhead)
        recorded = record.get("batch/sequences")
        step = int(record["step"])
        replay.decisions.append(Replayed(name, step, position, decision, recorded))
    return replay
