"""Base hyper-parameters, and the parametrization that transfers them to other model sizes."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from feldspar.recipe.base import Count, Settings

ParametrizationType = Literal["sp", "mup", "supar", "completep"]
Scaling = Literal["none", "width"]

SCALING_FIELDS = ("weight_decay_scaling", "epsilon_scaling")

LARGEST_USUAL = {
    "init_std": 1.0,
    "block_output_init_std": 1.0,
    "learning_rate": 1.0,
    "embedding_multiplier": 1e4,
    "output_multiplier": 1e4,
    "attention_multiplier": 1e4,
}
"""Largest usual values. Above them, activations or the first update are mostly too large to train.
"""


class ParametrizationSettings(Settings):
    """Rules for initial values, learning rates and multipliers at each width, depth and density."""

    type: ParametrizationType = "sp"
    """sp: standard parametrization. mup: maximal update (muP, 2203.03466). supar: muP for sparse
    models (SmuPar, 2405.15743). completep: muP with depth (CompleteP, 2505.01618)."""
    base_d_model: Count | None = None
    """Width of the model for which the hyper-parameters were tuned (all but sp)."""
    base_d_ff: PositiveFloat | None = None
    """Feed-forward width for which they were tuned (all but sp); may be a fraction."""
    base_n_layers: Count | None = None
    """Number of blocks for which they were tuned (where depth is scaled)."""
    base_density: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Density for which they were tuned (supar)."""
    init_std: PositiveFloat = 0.02
    """Standard deviation of initial weights at the base width."""
    init: Literal["normal", "truncated_normal"] = "normal"
    """Distribution of initial weights; truncated_normal is cut at two standard deviations."""
    block_output_init_std: PositiveFloat | None = None
    """Standard deviation of the matrices that write to the residual stream, instead of the table's.
    """
    learning_rate: PositiveFloat
    """Peak learning rate at the base width."""
    embedding_multiplier: PositiveFloat = 1.0
    """Multiplies the sum of token and position embeddings."""
    output_multiplier: PositiveFloat = 1.0
    """Multiplies the logits; all but sp then divide them by the width multiplier."""
    attention_multiplier: PositiveFloat = 1.0
    """Multiplies the attention logits, before they are divided by head_dim (sp: by its root)."""
    depth_exponent: Annotated[float, Field(ge=0.5, le=1)] | None = None
    """Residual branches are divided by the depth multiplier to this power, from 0.5 to 1. Default:
    1 for completep. With supar it combines the two parametrizations."""
    weight_decay_scaling: Scaling | None = None
    """width: multiply the weight decay of hidden matrices by the width multiplier that their
    learning rate is divided by; density does not change it. Default: width where depth is scaled,
    else none."""
    epsilon_scaling: Scaling | None = None
    """width: divide Adam's epsilon in the blocks by the width multiplier and by the divisor of
    residual branches. Default: width where depth is scaled, else none."""

    @property
    def depth_power(self) -> float | None:
        """Exponent of the depth rules; None where depth is not scaled."""
        if self.type == "completep":
            return 1.0 if self.depth_exponent is None else self.depth_exponent
        return self.depth_exponent

    @property
    def scales_weight_decay(self) -> bool:
        """True where the weight decay of hidden matrices grows with width."""
        return self._scales(self.weight_decay_scaling)

    @property
    def scales_epsilon(self) -> bool:
        """True where Adam's epsilon in the blocks shrinks with width and depth."""
        return self._scales(self.epsilon_scaling)

    @property
    def warnings(self) -> list[str]:
        """Warnings about values far above the usual ones, one line each."""
        return [
            f"parametrization.{name}: {value:g} is far above the usual values (at most "
            f"{limit:g}); the loss will probably be infinite or never fall"
            for name, limit in LARGEST_USUAL.items()
            if (value := getattr(self, name)) is not None and value > limit
        ]

    def _scales(self, chosen: Scaling | None) -> bool:
        return self.depth_power is not None if chosen is None else chosen == "width"

    @model_validator(mode="after")
    def _bases_given(self) -> Self:
        bases = {"base_d_model": self.base_d_model, "base_d_ff": self.base_d_ff}
        missing = [name for name, value in bases.items() if value is None]
        if missing and (self.type != "sp" or len(missing) == 1):
            raise ValueError(f"{missing[0]}: {self.type} needs {' and '.join(bases)}")
        if self.depth_power is not None and self.base_n_layers is None:
            raise ValueError("base_n_layers: the depth rules need it; add it")
        return self

    @model_validator(mode="after")
    def _fields_have_a_meaning(self) -> Self:
        changed = [name for name in SCALING_FIELDS if getattr(self, name) == "width"]
        if self.type == "sp" and changed:
            raise ValueError(f"{changed[0]}: sp does not use it; remove it or choose type: mup")
        if self.type in ("sp", "mup") and self.depth_exponent is not None:
            raise ValueError(
                f"depth_exponent: {self.type} does not use it; choose type: completep, or "
                "supar to combine the two"
            )
        if self.type != "supar" and self.base_density != 1.0:
            raise ValueError(f"base_density: {self.type} does not use it; choose type: supar")
        return self
