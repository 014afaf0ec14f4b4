"""What a run measures of its gradients' noise. Torch-free."""

from typing import Literal, Self

from pydantic import model_validator

from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.base import Settings

Groups = Literal["microbatch", "ranks"]


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
