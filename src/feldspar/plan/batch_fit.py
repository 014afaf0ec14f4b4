"""Fit the growth of the noise scale in a pilot run's log, and derive a batch schedule from it.

The quadratic model of 1812.06162 tells what the schedule would save: a step of B sequences at noise
scale S makes the progress of B / (B + S) noiseless steps. The same progress therefore takes (B' +
S) / (B + S) of the tokens under another batch B'. The schedule is fixed, so that a run with it can
be reproduced without feedback.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.noise_scale.control.controller import batch_sizes
from feldspar.plan.summary import Plan
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch

LEAST_POINTS = 5
POINTS = 100
"""Number of averages that are fitted. More would repeat nearly the same values."""


@dataclass(frozen=True)
class PilotStep:
    """A step of the pilot: tokens of the phase after it, its batch, and its noise scale."""

    tokens: int
    sequences: int
    noise_scale: float


@dataclass(frozen=True)
class Growth:
    """Noise scale in sequences = coefficient x tokens^exponent."""

    coefficient: float
    exponent: float
    residual: float
    """Standard deviation of the natural logarithm around the line."""

    def at(self, tokens: float) -> float:
        """Return the noise scale after ``tokens`` tokens of the phase."""
        return self.coefficient * tokens**self.exponent


@dataclass(frozen=True)
class Cost:
    """The cost of the pilot's progress under a batch schedule."""

    sequences: float
    steps: float


def pilot_steps(
    records: Iterable[Mapping[str, Any]], phase: str, start_position: int
) -> list[PilotStep]:
    """Return a phase's steps from the first one whose noise scale was measured.

    An undetermined step has the noise scale of the one before it. Raises UserError where there is
    none at all.
    """
    steps: list[PilotStep] = []
    last = math.nan
    for record in records:
        if record["phase"] != phase:
            continue
        value = float(record.get("noise_scale/total", math.nan))
        last = value if value > 0 and math.isfinite(value) else last
        if last > 0:
            tokens = int(record["tokens"]) - start_position
            steps.append(PilotStep(tokens, int(record["sequences"]), last))
    if len(steps) < LEAST_POINTS:
        raise UserError(
            f"phase {phase} has {len(steps)} steps whose noise scale was measured",
            allowed=f"at least {LEAST_POINTS}",
            do="train the pilot with noise_scale, for longer",
        )
    return steps


def fit_growth(steps: Sequence[PilotStep]) -> Growth:
    """Fit a power of tokens to the noise scale by least squares of logarithms."""
    ends = np.array([step.tokens for step in steps], dtype=np.float64)
    marks = np.linspace(ends[0], ends[-1], POINTS)
    chosen = [steps[place] for place in sorted({*np.searchsorted(ends, marks)})]
    x = np.log([step.tokens for step in chosen])
    y = np.log([step.noise_scale for step in chosen])
    exponent, constant = np.polyfit(x, y, 1)
    residual = float(np.std(y - exponent * x - constant))
    return Growth(float(np.exp(constant)), float(exponent), residual)


def fit_levels(growth: Growth, batch: NoiseScaleBatch, phase_tokens: int) -> list[tuple[int, int]]:
    """Return (first token of the phase, sequences) for each level of a rising staircase.

    A level begins where gain x noise scale has reached it. Raises UserError where the noise scale
    does not grow.
    """
    if growth.exponent <= 0:
        constant = batch.gain * growth.at(phase_tokens / 2)
        raise UserError(
            "the pilot's noise scale does not grow, so that no staircase follows it",
            found=f"exponent {growth.exponent:.3g} of tokens",
            do=f"keep a constant batch, of {max(constant, 1):.0f} sequences by the gain",
        )
    sizes = batch_sizes(batch, batch.quantum_sequences)
    levels = [(0, sizes[0])]
    for size in sizes[1:]:
        logarithm = math.log(size / (batch.gain * growth.coefficient)) / growth.exponent
        if logarithm >= math.log(phase_tokens):
            break
        start = math.ceil(math.exp(logarithm))
        if start <= max(levels[-1][0], sizes[0]):
            levels[-1] = (levels[-1][0], size)
        else:
            levels.append((start, size))
    return levels


def levels_override(index: int, levels: Sequence[tuple[int, int]]) -> str:
    """Return the levels as an override of a recipe's phase, key=value."""
    stairs = ", ".join(f"{{from: {start} tokens, sequences: {size}}}" for start, size in levels)
    return f"phases.{index}.batch={{type: by_tokens, levels: [{stairs}]}}"


def matched_cost(
    steps: Sequence[PilotStep], batch_at: Callable[[float], int], context_length: int
) -> Cost:
    """Return the sequences and steps for the pilot's progress with ``batch_at`` (tokens ->
    sequences).
    """
    sequences = count = 0.0
    before = 0
    for step in steps:
        progress = (step.tokens - before) / context_length / (step.sequences + step.noise_scale)
        before = step.tokens
        batch = batch_at(sequences * context_length)
        sequences += progress * (batch + step.noise_scale)
        count += progress * (batch + step.noise_scale) / batch
    return Cost(sequences, count)


def fitted_schedule(
    plan: Plan,
    records: Iterable[Mapping[str, Any]],
    batch: NoiseScaleBatch,
    phase_name: str | None = None,
) -> dict[str, Any]:
    """Return the staircase that fits a pilot's log in a phase (default: the first), as plain
    values.

    ``predicted``: tokens and steps for the pilot's progress under the staircase, under the pilot's
    own batches, and under a constant batch of the staircase's last level. Raises UserError for a
    phase that the plan lacks, and as ``pilot_steps`` and ``fit_levels``.
    """
    phases = {phase.name: phase for phase in plan.timeline.phases}
    phase = phases.get(phase_name or plan.timeline.phases[0].name)
    if phase is None:
        raise UserError(f"--phase: the run has no phase {phase_name!r}", allowed=phases)
    context = phase.context_length
    steps = pilot_steps(records, phase.name, phase.start_position)
    growth = fit_growth(steps)
    levels = fit_levels(growth, batch, phase.length)
    starts = [start for start, _ in levels]

    def stair(tokens: float) -> int:
        return levels[bisect_right(starts, tokens) - 1][1]

    costs = {
        "schedule": matched_cost(steps, stair, context),
        "constant": matched_cost(steps, lambda tokens: levels[-1][1], context),
        "pilot": Cost(steps[-1].tokens / context, float(len(steps))),
    }
    return {
        "phase": phase.name,
        "growth": asdict(growth),
        "levels": [{"from_tokens": start, "sequences": size} for start, size in levels],
        "predicted": {
            name: {"tokens": cost.sequences * context, "steps": cost.steps}
            for name, cost in costs.items()
        },
        "override": levels_override(phase.index, levels),
    }
