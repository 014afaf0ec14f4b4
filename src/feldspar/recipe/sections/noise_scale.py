"""What a run measures of its gradients' noise, and a batch that follows it. Torch-free."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.base import Settings

Groups = Literal["microbatch", "ranks"]

PAPER_FACTOR = 1.4
"""Total noise scale over that of the norm layers in 2411.00999."""


class NoiseScaleSettings(Settings):
    """The gradient noise scale, measured beside training and logged with each step."""

    estimator: Literal["per_example", "microbatch", "ranks"] = "per_example"
    """What the step's gradient is compared with: each example's gradient; or, for all parameters
    at once but with fewer samples, each micro-batch's or each process's."""
    coverage: Literal["norm", "all"] = "norm"
    """Layers whose examples are measured: norm layers, at no cost, or all of them."""
    half_life: Amount | None = None
    """Distance after which a step counts half; default: 1% of run, at least 64 steps."""
    every: Amount | None = None
    """Distance between two measured steps; default: each step is measured."""
    calibrate: Literal["none"] | Groups = "none"
    """How the factor from norm layers to the whole model is measured: by comparing micro-batches
    or processes (all parameters); none: the 1.4 of 2411.00999."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for key in ("half_life", "every"):
            amount: Amount | None = getattr(self, key)
            if amount is not None and (amount.value <= 0 or amount.unit is Unit.EPOCHS):
                raise ValueError(f"{key}: {amount} is no distance above 0, such as 1% of run")
        if self.estimator != "per_example" and self.coverage == "all":
            raise ValueError(f"coverage: estimator {self.estimator} takes all parameters anyhow")
        if self.calibrate != "none" and (self.estimator, self.coverage) != ("per_example", "norm"):
            raise ValueError("calibrate: only norm layers' noise scale needs a factor to the total")
        return self


class NoiseScaleBatch(Settings):
    """A batch that follows the measured noise scale, level by level, within bounds."""

    type: Literal["noise_scale"]
    objective: Literal["tokens", "time"] = "tokens"
    """What the batch is worth: tokens takes gain x noise scale; time weighs in what a step costs
    beside its sequences, measured in the run (root of that cost in sequences x noise scale)."""
    gain: PositiveFloat = 0.5
    """Batch over noise scale; also the share of tokens that is given up for fewer steps."""
    minimum: Amount
    """Sequences a step at the start of the phase, and the fewest."""
    maximum: Amount
    """The most sequences a step."""
    quantum: Amount | None = None
    """Each batch is a multiple of this many sequences, which the processes must divide; default:
    the minimum. Whole micro-batches on all processes are the fastest."""
    level_ratio: Annotated[float, Field(gt=1, le=16)] = math.sqrt(2)
    """Distance of two levels, before rounding up to whole quanta."""
    max_factor: Annotated[float, Field(gt=1)] = 2.0
    """How much one decision may raise the batch, though always by one level."""
    monotone: bool = True
    """Never lower the batch: a changed learning rate changes the noise, which closes a loop."""
    learning_rate_power: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The learning rate follows (batch / minimum) to this power, at most twofold; 0: not at all."""

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
                raise ValueError(f"{key}: {amount} is no multiple of {self.quantum_sequences}")
        return self

    @property
    def quantum_sequences(self) -> int:
        """Sequences that each batch is a multiple of."""
        return int((self.quantum or self.minimum).value)
