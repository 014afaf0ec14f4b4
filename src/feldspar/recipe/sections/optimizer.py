"""The optimizers."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from feldspar.recipe.base import Settings

Betas = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]


class OptimizerSettings(Settings):
    """AdamW with decoupled weight decay on matrices."""

    type: Literal["adamw"] = "adamw"
    betas: Betas = (0.9, 0.95)
    """Decay rates of the two moments, per step."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled decay of tensors with at least two dimensions, multiplied by the learning rate."""
    clip_norm: PositiveFloat | Literal["none"] = 1.0
    """Largest norm of the whole gradient; none: no clipping."""


class PhaseOptimizer(Settings):
    """What a phase changes of the optimizer; it starts with fresh moments."""

    betas: Betas | None = None
    """Decay rates of the two moments; default: the section's."""
    epsilon: PositiveFloat | None = None
    """Added to the root of the second moment; default: the section's."""
    clip_norm: PositiveFloat | Literal["none"] | None = None
    """Largest norm of the whole gradient; none: no clipping; default: the section's."""


class SgdSettings(Settings):
    """Stochastic gradient descent with momentum; decay of matrices and kernels, in the gradient."""

    type: Literal["sgd"]
    learning_rate: PositiveFloat
    """Peak, which the run's schedule is a fraction of."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the last update a step keeps."""
    nesterov: bool = False
    """Look ahead by the momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Times the weight, added to its gradient; none for norms and biases."""
    clip_norm: PositiveFloat | Literal["none"] = "none"
    """Largest norm of the whole gradient; none: no clipping."""

    @model_validator(mode="after")
    def _momentum_to_look_ahead(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: there is no momentum to look ahead by")
        return self


class RmsPropSettings(Settings):
    """RMSprop with momentum; decay of matrices and kernels, in the gradient."""

    type: Literal["rmsprop"]
    learning_rate: PositiveFloat
    """Peak, which the run's schedule is a fraction of."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay rate of the mean square of the gradient, per step."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the last update a step keeps."""
    epsilon: PositiveFloat = 1e-3
    """Added to the root of the mean square."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    """Times the weight, added to its gradient; none for norms and biases."""
    clip_norm: PositiveFloat | Literal["none"] = "none"
    """Largest norm of the whole gradient; none: no clipping."""
