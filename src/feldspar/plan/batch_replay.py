"""Repeat the decisions on a run's batches from its log, by the same or by other rules."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from feldspar.noise_scale.control.controller import Decision, Reading
from feldspar.plan.noise_scale import steering_of
from feldspar.plan.summary import Plan


@dataclass(frozen=True)
class Replayed:
    """A repeated decision, with the batch that the run took instead if that differs."""

    phase: str
    step: int
    tokens: int
    decision: Decision
    recorded: int | None
    """The batch that the run decided on there. None where its own rules made no decision."""

    @property
    def agrees(self) -> bool:
        """True if the run took the same batch."""
        return self.recorded == self.decision.after


@dataclass
class Replay:
    """All decisions in order, and the approximate number of steps of each phase at their
    batches.
    """

    decisions: list[Replayed] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)


def reading_of(record: Mapping[str, Any]) -> Reading:
    """Return the model's noise scale from a record of metrics.jsonl."""
    key = "noise_scale/total"
    return Reading(float(record[key]), float(record[f"{key}/low"]), float(record[f"{key}/high"]))


def replay_batches(plan: Plan, records: Iterable[Mapping[str, Any]]) -> Replay:
    """Return every decision of the steered phases of ``plan``, from the ``records`` of a run.

    ``plan`` may have other rules than the run, or the run's batch may not have been steered. The
    decisions are then those that the rules would have made at the run's noise scale, as if the
    batch had no effect on it.
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
