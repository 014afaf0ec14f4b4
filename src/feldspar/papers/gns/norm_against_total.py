"""The norm layers' noise scale beside the model's, read from runs that measured all layers.

Noise and signal are averaged over steps before the division. Noise scales share the trend of
training, which raises any correlation: that of what is left without the trend is beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.noise_scale.control.calibration import Regression, regress_through_origin
from feldspar.runtime.run_folder import RunFolder

GROUPS = ("norm", "total")
LEAST_BLOCKS = 6
HALF_LIVES = (14, 35, 69, 138)
"""Steps after which a step counts half; 69 is a decay of 0.99."""
WARMUP = 0.1
"""Share of the tokens before which averages say little."""
BLOCKS = 10
FINE_BLOCKS = 30


@dataclass(frozen=True)
class StepNoise:
    """Noise and signal of the norm layers and of the model at each step of a run.

    ``noise`` and ``signal_sq`` by group, (steps,); ``tokens`` after each step.
    """

    tokens: np.ndarray
    noise: dict[str, np.ndarray]
    signal_sq: dict[str, np.ndarray]

    def scales(self, group: str, half_life_steps: float) -> np.ndarray:
        """Return the noise scale after each step, its parts averaged; NaN while undetermined."""
        noise = _averaged(self.noise[group], half_life_steps)
        signal = _averaged(self.signal_sq[group], half_life_steps)
        return _ratio(noise, signal)

    def block_scales(self, group: str, blocks: int) -> np.ndarray:
        """Return the noise scale of each of ``blocks`` blocks of steps, as a ratio of sums."""
        parts = (np.array_split(values[group], blocks) for values in (self.noise, self.signal_sq))
        noise, signal = (np.array([part.sum() for part in own]) for own in parts)
        return _ratio(noise, signal)

    def factors(self, blocks: int) -> np.ndarray:
        """Return the factor from norm layers to total in each block."""
        return self.block_scales("total", blocks) / self.block_scales("norm", blocks)

    def stray_by_chance(self, blocks: int, draws: int = 2000) -> float:
        """Return the share by which one block's factor would lie off their mean by chance alone.

        That is the largest share of a run's blocks from the second on, and its median over runs
        whose steps are drawn from this run's: in these the factor is constant.
        """
        first, random = len(self.tokens) // blocks, np.random.default_rng(0)
        shape = (draws, blocks - 1, first)
        steps = random.integers(first, len(self.tokens), shape)
        sums = {
            group: [values[group][steps].sum(-1) for values in (self.noise, self.signal_sq)]
            for group in GROUPS
        }
        total, norm = (_ratio(*sums[group]) for group in ("total", "norm"))
        away = farthest_from_mean(total / norm)
        known = away[np.isfinite(away)]
        return float(np.median(known)) if known.size else float("inf")


def farthest_from_mean(factors: np.ndarray) -> np.ndarray:
    """Return for each run of ``factors`` (runs, blocks) the largest share by which one lies off
    the run's mean."""
    return np.abs(factors / factors.mean(axis=1, keepdims=True) - 1).max(axis=1)


def read_step_noise(run: Path) -> StepNoise:
    """Read the log of a run that measured all its layers.

    Raises UserError for one that measured less.
    """
    rows = RunFolder(run).steps()
    keys = [f"noise_scale/{group}/{part}" for group in GROUPS for part in ("noise", "signal_sq")]
    rows = [row for row in rows if all(key in row for key in keys)]
    if not rows:
        raise UserError(f"{run}: no step measured norm layers and total both")
    return StepNoise(
        np.array([row["tokens"] for row in rows], dtype=np.float64),
        {group: _column(rows, f"noise_scale/{group}/noise") for group in GROUPS},
        {group: _column(rows, f"noise_scale/{group}/signal_sq") for group in GROUPS},
    )


def relation(steps: StepNoise, half_life_steps: float, warmup: float) -> Regression:
    """Regress the total on the norm layers through the origin, by averages after the warm-up."""
    late = steps.tokens > warmup * steps.tokens[-1]
    norm, total = (steps.scales(group, half_life_steps)[late] for group in GROUPS)
    return regress_through_origin(norm.tolist(), total.tolist())


def correlation_beyond_trend(steps: StepNoise, blocks: int, warmup: float) -> float:
    """Pearson's r of what is left of the changes from block to block, in logarithms, once the
    common growth (a parabola in the logarithm of tokens) is taken out of each noise scale.

    NaN where too few blocks are determined.
    """
    first = round(warmup * blocks)
    tokens = np.log([part.mean() for part in np.array_split(steps.tokens, blocks)])[first:]
    logs = np.stack([np.log(steps.block_scales(group, blocks))[first:] for group in GROUPS])
    known = np.isfinite(logs).all(axis=0)
    if known.sum() < LEAST_BLOCKS:
        return float("nan")
    tokens, logs = tokens[known], logs[:, known]
    left = [own - np.polyval(np.polyfit(tokens, own, 2), tokens) for own in logs]
    return float(np.corrcoef(np.diff(left, axis=1))[0, 1])


def relation_figures(noises: Sequence[StepNoise]) -> dict[str, Any]:
    """Return what runs that measured both say, one a seed, as plain values."""
    return {
        "relation": {
            length: {
                "slope": [own.slope for own in found],
                "correlation": [own.correlation for own in found],
            }
            for length in HALF_LIVES
            if length < len(noises[0].tokens)
            for found in [[relation(own, length, WARMUP) for own in noises]]
        },
        "beyond_trend": [correlation_beyond_trend(own, FINE_BLOCKS, WARMUP) for own in noises],
        "block_scales": {
            group: [own.block_scales(group, BLOCKS).tolist() for own in noises] for group in GROUPS
        },
        "factors": [own.factors(BLOCKS).tolist() for own in noises],
    }


def logged_factors(run: Path, blocks: int) -> np.ndarray:
    """Return the factor from norm layers to total that a run used, mean of each block of steps."""
    rows = RunFolder(run).steps()
    factors = _column(rows, "noise_scale/factor")
    return np.array([part.mean() for part in np.array_split(factors, blocks)])


def _column(rows: Sequence[dict], key: str) -> np.ndarray:
    return np.array([float(row[key]) for row in rows])


def _averaged(values: np.ndarray, half_life_steps: float) -> np.ndarray:
    """Average exponentially; equal weights of both parts leave the ratio and stay undivided."""
    decay = 2.0 ** (-1.0 / half_life_steps)
    averages = np.empty_like(values)
    average = 0.0
    for index, value in enumerate(values):
        average = decay * average + (1 - decay) * value
        averages[index] = average
    return averages


def _ratio(noise: np.ndarray, signal: np.ndarray) -> np.ndarray:
    positive = signal > 0
    return np.where(positive, noise / np.where(positive, signal, 1.0), np.nan)
