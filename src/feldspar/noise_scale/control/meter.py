"""Average the noise scale over training, in tokens, with standard errors.

B_simple = <noise> / <signal_sq>; both are averaged with the same weights before the division
(1812.06162). An average of ratios is biased, and so is a component that is clamped before it is
averaged. If the signal's average is not positive, the noise scale is undetermined and reported as
such.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from feldspar.core.errors import UserError, nearest
from feldspar.noise_scale.control.statistics import StepStatistics

Status = Literal["measured", "undetermined"]


@dataclass(frozen=True)
class Estimate:
    """Noise scale in examples, and its range if the signal is wrong by a standard error."""

    value: float
    """B_simple; NaN while undetermined."""
    low: float
    """NaN if the signal's upper end is not positive."""
    high: float
    """Infinite if the signal's lower end is not positive."""
    status: Status
    noise: float
    """Average of the unbiased trace of the covariance of one example's gradient."""
    signal_sq: float
    """Average of the unbiased squared norm of the true gradient."""
    signal_sq_error: float
    """Standard error of the average; infinite after a single step."""
    effective_steps: float
    """Number of steps of equal weight that would give the average the same error."""
    tokens_per_example: float
    """Average length of an example, for a noise scale in tokens."""

    @property
    def value_tokens(self) -> float:
        """Noise scale in tokens."""
        return self.value * self.tokens_per_example


@dataclass
class _Average:
    """Weighted sums of one group; dividing by the weights removes the bias of the start."""

    weights: float = 0.0
    squared_weights: float = 0.0
    noise: float = 0.0
    signal_sq: float = 0.0
    signal_fourth: float = 0.0

    def decay(self, factor: float) -> None:
        """Reduce the weight of older steps."""
        self.weights *= factor
        self.squared_weights *= factor**2
        self.noise *= factor
        self.signal_sq *= factor
        self.signal_fourth *= factor

    def add(self, weight: float, noise: float, signal_sq: float) -> None:
        """Add a step."""
        self.weights += weight
        self.squared_weights += weight**2
        self.noise += weight * noise
        self.signal_sq += weight * signal_sq
        self.signal_fourth += weight * signal_sq**2

    @property
    def effective_steps(self) -> float:
        """(sum of weights)^2 / sum of squared weights."""
        return self.weights**2 / self.squared_weights if self.squared_weights else 0.0

    @property
    def signal_sq_error(self) -> float:
        """Standard error of the signal's average: the scatter of the steps over the root of their
        effective number. A single step has no scatter, and an infinite error."""
        if self.effective_steps <= 1 + 1e-9:
            return math.inf
        mean = self.signal_sq / self.weights
        variance = max(self.signal_fourth / self.weights - mean**2, 0.0)
        return math.sqrt(variance / self.effective_steps)


class NoiseScaleMeter:
    """Average steps with a half-life in tokens, for each group and parameter.

    Raises UserError for a half-life that is not positive.
    """

    def __init__(self, half_life_tokens: float) -> None:
        if not 0 < half_life_tokens < math.inf:
            raise UserError("half_life_tokens must be positive", found=half_life_tokens)
        self.half_life_tokens = half_life_tokens
        self.skipped_steps = 0
        """Number of steps that were not counted: not finite, or refused by the caller."""
        self._averages: dict[str, _Average] = {}
        self._tokens_per_example = (0.0, 0.0)

    def update(self, stats: StepStatistics | None, tokens: float) -> None:
        """Take a step of this many tokens. With None, or values that are not finite, only time
        passes."""
        if not 0 < tokens < math.inf:
            raise UserError("a step must have a positive number of tokens", found=tokens)
        factor = 2.0 ** (-tokens / self.half_life_tokens)
        for average in self._averages.values():
            average.decay(factor)
        weights, length = (factor * value for value in self._tokens_per_example)
        if stats is not None and stats.finite:
            weight = -math.expm1(-tokens / self.half_life_tokens * math.log(2))
            for name, moments in stats.items():
                average = self._averages.setdefault(name, _Average())
                average.add(weight, moments.noise, moments.signal_sq)
            weights += weight
            length += weight * tokens / stats.num_examples
        else:
            self.skipped_steps += 1
        self._tokens_per_example = (weights, length)

    @property
    def groups(self) -> Iterable[str]:
        """Groups and parameters with estimates."""
        return self._averages.keys()

    def estimate(self, group: str = "total", errors: float = 1.0) -> Estimate:
        """Return the noise scale of a group or parameter; ``errors`` is the band's width in
        standard errors.

        Before the first step all are undetermined. Later, a group that was never measured raises
        UserError.
        """
        if self._averages and group not in self._averages:
            known = nearest(group, self._averages) or next(iter(self._averages))
            raise UserError(f"{group} was not measured", allowed=f"{known}, ...")
        average = self._averages.get(group, _Average())
        if not average.weights:
            nan = math.nan
            return Estimate(nan, nan, nan, "undetermined", nan, nan, math.inf, 0.0, nan)
        noise, signal = average.noise / average.weights, average.signal_sq / average.weights
        error = average.signal_sq_error
        upper, lower = signal + errors * error, signal - errors * error
        return Estimate(
            value=noise / signal if signal > 0 else math.nan,
            low=noise / upper if upper > 0 else math.nan,
            high=noise / lower if lower > 0 else math.inf,
            status="measured" if signal > 0 else "undetermined",
            noise=noise,
            signal_sq=signal,
            signal_sq_error=error,
            effective_steps=average.effective_steps,
            tokens_per_example=self._tokens_per_example[1] / self._tokens_per_example[0],
        )

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as JSON."""
        return {
            "averages": {name: asdict(average) for name, average in self._averages.items()},
            "tokens_per_example": list(self._tokens_per_example),
            "skipped_steps": self.skipped_steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._averages = {name: _Average(**values) for name, values in state["averages"].items()}
        weights, length = state["tokens_per_example"]
        self._tokens_per_example = (weights, length)
        self.skipped_steps = int(state["skipped_steps"])
