"""Second moments of one optimizer step for each group of parameters, and the unbiased pair.

With c_i the contribution of example i to the final gradient G = sum of c_i and B examples in a
step, g_i = B c_i is the gradient of an example; G is the mean of the g_i, whatever the loss
averages over (1812.06162, appendix A; 2411.00999).
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from feldspar.core.errors import UserError, nearest


@dataclass(frozen=True)
class Moments:
    """Second moments of one group of parameters in one step.

    The gradient of the step is the mean over ``num_examples`` examples. ``m1`` is the mean squared
    norm of the gradients of smaller groups with ``examples_per_group`` examples each: one example,
    unless the groups are micro-batches or processes.
    """

    m1: float
    grad_sq: float
    """|G|^2, the squared norm of the step's gradient."""
    num_examples: int
    examples_per_group: float = 1.0

    @property
    def signal_sq(self) -> float:
        """Unbiased estimate of the squared norm of the true gradient; often negative in a single
        step."""
        big, small = self.num_examples, self.examples_per_group
        return (big * self.grad_sq - small * self.m1) / (big - small)

    @property
    def noise(self) -> float:
        """Unbiased estimate of the trace of the covariance of one example's gradient."""
        return (self.m1 - self.grad_sq) / (1 / self.examples_per_group - 1 / self.num_examples)

    @property
    def finite(self) -> bool:
        """True if both moments are finite numbers."""
        return math.isfinite(self.m1) and math.isfinite(self.grad_sq)

    @staticmethod
    def total(parts: Iterable["Moments"]) -> "Moments":
        """Return the moments of disjoint groups of parameters together: moments add up. ``parts``
        is not empty."""
        parts = list(parts)
        return Moments(
            math.fsum(part.m1 for part in parts) if all(p.finite for p in parts) else math.nan,
            math.fsum(part.grad_sq for part in parts) if all(p.finite for p in parts) else math.nan,
            parts[0].num_examples,
            parts[0].examples_per_group,
        )


class StepStatistics(Mapping[str, Moments]):
    """Moments of one step by group (total, norm, attention, ...) and by parameter name.

    ``total`` exists only if all trained parameters were measured.
    """

    def __init__(
        self,
        parameters: Mapping[str, Moments],
        groups: Mapping[str, list[str]],
        per_example: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.parameters = parameters
        self.groups = tuple(groups)
        self._per_example = per_example
        self._moments = {
            name: Moments.total(parameters[member] for member in members)
            for name, members in groups.items()
        } | dict(parameters)

    def __getitem__(self, name: str) -> Moments:
        """Return the moments of a group or parameter. Raises UserError if it was not measured."""
        if name not in self._moments:
            do = "instrument the model with coverage='all'" if name == "total" else None
            known = [*self.groups, nearest(name, self.parameters) or next(iter(self.parameters))]
            raise UserError(f"{name} was not measured", allowed=known, do=do)
        return self._moments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the moments of a group or parameter, or ``default`` if it was not measured."""
        return self._moments.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._moments

    def __iter__(self) -> Iterator[str]:
        return iter(self._moments)

    def __len__(self) -> int:
        return len(self._moments)

    @property
    def num_examples(self) -> int:
        """Number of examples of the step, over all processes."""
        return next(iter(self.parameters.values())).num_examples

    @property
    def finite(self) -> bool:
        """True if all moments are finite numbers."""
        return all(moments.finite for moments in self.parameters.values())

    @property
    def per_example(self) -> Mapping[str, Tensor]:
        """Squared norms |c_i|^2 (B,) by parameter name, ordered by process and micro-batch."""
        if self._per_example is None:
            raise UserError(
                "the norms of single examples were not kept",
                do="instrument the model with per_example=True",
            )
        return self._per_example
