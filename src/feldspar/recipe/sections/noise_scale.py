"""Settings to measure the gradient noise scale, and of a batch size that follows it."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.base import Settings

Groups = Literal["microbatch", "ranks"]

PAPER_FACTOR = 1.4
"""Ratio of the total noise scale to that of the norm layers in 2411.00999."""


class NoiseScaleSettings(Settings):
    """Measure the gradient noise scale during training and log it with each step."""

    estimator: Literal["per_example", "microbatch", "ranks"] = "per_example"
    """Gradients that are compared with the step's gradient. per_example: of each example.
    microbatch or ranks: of each micro-batch or process; this measures all parameters at once, but
    from fewer samples."""
    coverage: Literal["norm", "all"] = "norm"
    """Layers that are measured: norm layers, which cost nothing, or all of them."""
    half_life: Amount | None = None
    """Weight of an old step in the average halves over this distance; default: 1% of run, at least
    64 steps."""
    every: Amount | None = None
    """Distance between two measured steps; default: every step is measured."""
    calibrate: Literal["none"] | Groups = "none"
    """Way to find the ratio of the whole model's noise scale to that of the norm layers: compare
    micro-batches or processes (all parameters). none: use 1.4, from 2411.00999."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for key in ("half_life", "every"):
            amount: Amount | None = getattr(self, key)
            if amount is not None and (amount.value <= 0 or amount.unit is Unit.EPOCHS):
                raise ValueError(
                    f"{key}: the distance {amount} must be above 0, for example 1% of run"
                )
        if self.estimator != "per_example" and self.coverage == "all":
            raise ValueError(
                f"coverage: remove it; estimator {self.estimator} always measures all parameters"
            )
        if self.calibrate != "none" and (self.estimator, self.coverage) != ("per_example", "norm"):
            raise ValueError(
                "calibrate: remove it; only a noise scale of norm layers needs a factor"
            )
        return self


class NoiseScaleBatch(Settings):
    """A batch size that follows the measured noise scale, in levels, between two bounds."""

    type: Literal["noise_scale"]
    objective: Literal["tokens", "time"] = "tokens"
    """Aim of the batch size. tokens: gain x noise scale. time: also consider the part of a step's
    time that does not depend on the batch, measured during the run; the batch is sqrt(this time in
    sequences x noise scale)."""
    gain: PositiveFloat = 0.5
    """Ratio of batch size to noise scale. It is also the share of tokens that is traded for fewer
    steps."""
    minimum: Amount
    """Smallest batch in sequences; the phase starts with it."""
    maximum: Amount
    """Largest batch in sequences."""
    quantum: Amount | None = None
    """Each batch is a multiple of this many sequences, which must be divisible by the number of
    processes; default: the minimum. Whole micro-batches on all processes are the fastest."""
    level_ratio: Annotated[float, Field(gt=1, le=16)] = math.sqrt(2)
    """Ratio of two neighbouring levels, before they are rounded up to whole quanta."""
    max_factor: Annotated[float, Field(gt=1)] = 2.0
    """Largest growth of the batch in one decision; one level is always allowed."""
    monotone: bool = True
    """Never lower the batch. A batch that changes the learning rate also changes the measured
    noise, which would feed back into the batch."""
    learning_rate_power: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The learning rate is multiplied by (batch / minimum) to this power, at most by 2; 0: no
    change."""

    @model_validator(mode="after")
    def _whole_quanta(self) -> Self:
        if self.minimum.value > self.maximum.value:
            raise ValueError(f"minimum: {self.minimum} is more than the maximum, {self.maximum}")
        for key in ("minimum", "maximum", "quantum"):
            amount: Amount | None = getattr(self, key)
            if amount is None:
                continue
            if amount.unit is not Unit.SEQUENCES or amount.value < 1 or amount.value % 1:
                raise ValueError(f"{key}: a whole number of sequences is needed, not {amount}")
            if amount.value % self.quantum_sequences:
                raise ValueError(f"{key}: {amount} is not a multiple of {self.quantum_sequences}")
        return self

    @property
    def quantum_sequences(self) -> int:
        """Number of sequences that each batch is a multiple of."""
        return int((self.quantum or self.minimum).value)
