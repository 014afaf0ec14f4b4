"""Settings of the optimizers, and the rule by which each one updates a parameter.

An optimizer may update parameters of different roles by different rules. A rule declares the state
that it keeps, which memory planning and checkpoints ask for.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from feldspar.core.rows import ParameterRow, Role
from feldspar.recipe.base import NameOrMapping, Settings

Betas = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]


@dataclass(frozen=True)
class UpdateRule:
    """One way to update a parameter, and the state that the rule keeps for it."""

    name: str
    """The key of the rule in ``train.optimizer`` and in the rates of the parametrization."""
    moments: tuple[str, ...]
    """Names of the state's tensors that have the parameter's shape."""
    counts_steps: bool = True
    """True where the state holds a float32 count of updates beside the moments."""
    epsilon: float = 0.0
    """The number that keeps a divisor from zero; the parametrization multiplies it."""
    learning_rate_ratio: float = 1.0
    """Learning rate at the base width, as a multiple of parametrization.learning_rate."""
    keeps_zeros: bool = True
    """True where an entry of weight, gradient and moments that is zero stays zero. Otherwise
    masked entries are set to zero after each update."""


class OptimizerSection(Settings):
    """Keys of one optimizer, without the peak learning rate."""

    @model_validator(mode="before")
    @classmethod
    def _rate_lies_elsewhere(cls, value: Any) -> Any:
        if isinstance(value, dict) and "learning_rate" in value:
            raise ValueError(
                "learning_rate: set the peak learning rate in parametrization.learning_rate"
            )
        return value


class OptimizerSettings(OptimizerSection):
    """AdamW with decoupled weight decay on matrices."""

    type: Literal["adamw"] = "adamw"
    betas: Betas = (0.9, 0.95)
    """Decay rates of the first and second moment, per step."""
    epsilon: PositiveFloat = 1e-8
    """Number added to the root of the second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled weight decay of tensors with two or more dimensions, multiplied by the learning
    rate."""
    clip_norm: PositiveFloat | Literal["none"] = 1.0
    """Largest norm of the whole gradient; none: no clipping."""

    @property
    def only_rule(self) -> UpdateRule:
        """Rule of all parameters."""
        return UpdateRule("adamw", ("exp_avg", "exp_avg_sq"), epsilon=self.epsilon)

    def rule(self, row: ParameterRow) -> UpdateRule:
        """Return the rule that updates a parameter."""
        return self.only_rule


class MuonSettings(OptimizerSection):
    """Muon for the matrices of the blocks, and AdamW for embeddings, head, norms and biases.

    Muon (2502.16982, equation 1) updates a matrix by its momentum with all singular values set to
    about 1.
    """

    type: Literal["muon"]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Share of the matrices' mean gradient that a step keeps."""
    nesterov: bool = True
    """Use Nesterov momentum."""
    ns_steps: Annotated[int, Field(ge=1, lt=100)] = 5
    """Newton-Schulz iterations that make an update orthogonal."""
    adjustment: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """Factor of the learning rate of a matrix, from its shape. match_rms_adamw: 0.2 sqrt(max(rows,
    columns)), so that its entries change as much as with AdamW. original: sqrt(max(1, rows /
    columns))."""
    learning_rate_ratio: PositiveFloat = 1.0
    """Learning rate of the matrices, as a multiple of parametrization.learning_rate. AdamW's part
    uses that rate itself."""
    betas: Betas = (0.9, 0.95)
    """Decay rates of AdamW's two moments, per step."""
    epsilon: PositiveFloat = 1e-8
    """Number added to the root of AdamW's second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled weight decay of tensors with two or more dimensions, multiplied by their own
    learning rate before the adjustment."""
    clip_norm: PositiveFloat | Literal["none"] = 1.0
    """Largest norm of the whole gradient; none: no clipping."""

    def rule(self, row: ParameterRow) -> UpdateRule:
        """Return the rule that updates a parameter."""
        if row.role is not Role.HIDDEN or len(row.shape) != 2:
            return UpdateRule("adamw", ("exp_avg", "exp_avg_sq"), epsilon=self.epsilon)
        return UpdateRule(
            f"muon/{self.adjustment}",
            ("momentum_buffer",),
            counts_steps=False,
            epsilon=1e-7,
            learning_rate_ratio=self.learning_rate_ratio,
            # The update is orthogonal, so it is not zero where the gradient is.
            keeps_zeros=False,
        )


def _adamw_by_default(value: Any) -> Any:
    return {"type": "adamw"} | value if isinstance(value, dict) else value


LanguageOptimizer = Annotated[
    OptimizerSettings | MuonSettings,
    Field(discriminator="type"),
    BeforeValidator(_adamw_by_default),
    NameOrMapping,
]
"""The optimizers of language models."""


class PhaseOptimizer(Settings):
    """Changes of a phase to the optimizer; the phase starts with fresh moments."""

    betas: Betas | None = None
    """Decay rates of the two moments; default: the section's."""
    epsilon: PositiveFloat | None = None
    """Number added to the root of the second moment; default: the section's."""
    clip_norm: PositiveFloat | Literal["none"] | None = None
    """Largest norm of the whole gradient; none: no clipping; default: the section's."""


class SgdSettings(OptimizerSection):
    """Stochastic gradient descent with momentum. Weight decay is added to the gradient of matrices
    and kernels."""

    type: Literal["sgd"]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the previous update that each step keeps."""
    nesterov: bool = False
    """Use Nesterov momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Factor of the weight that is added to its gradient; norms and biases have none."""
    clip_norm: PositiveFloat | Literal["none"] = "none"
    """Largest norm of the whole gradient; none: no clipping."""

    @property
    def only_rule(self) -> UpdateRule:
        """Rule of all parameters."""
        moments = ("momentum_buffer",) if self.momentum else ()
        return UpdateRule("sgd", moments, counts_steps=False)

    @model_validator(mode="after")
    def _momentum_to_look_ahead(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: it needs momentum above 0")
        return self


class RmsPropSettings(OptimizerSection):
    """RMSprop with momentum. Weight decay is added to the gradient of matrices and kernels."""

    type: Literal["rmsprop"]
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay rate of the mean square of the gradient, per step."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the previous update that each step keeps."""
    epsilon: PositiveFloat = 1e-3
    """Number added to the root of the mean square."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    """Factor of the weight that is added to its gradient; norms and biases have none."""
    clip_norm: PositiveFloat | Literal["none"] = "none"
    """Largest norm of the whole gradient; none: no clipping."""

    @property
    def only_rule(self) -> UpdateRule:
        """The rule of every parameter."""
        moments = ("square_avg", "momentum_buffer") if self.momentum else ("square_avg",)
        return UpdateRule("rmsprop", moments, epsilon=self.epsilon)
