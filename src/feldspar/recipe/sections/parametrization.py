"""Base hyper-parameters and the parametrization that carries them to other sizes."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from feldspar.recipe.base import Count, Settings

ParametrizationType = Literal["sp", "mup", "supar", "completep"]
Scaling = Literal["none", "width"]

FORWARD_FIELDS = ("embedding_multiplier", "output_multiplier", "attention_multiplier")
SCALING_FIELDS = ("weight_decay_scaling", "epsilon_scaling")

LARGEST_USUAL = {
    "init_std": 1.0,
    "block_output_init_std": 1.0,
    "learning_rate": 1.0,
    "embedding_multiplier": 1e4,
    "output_multiplier": 1e4,
    "attention_multiplier": 1e4,
}
"""Above these a model's activations or its first update leave what it can learn from."""


class ParametrizationSettings(Settings):
    """How initial values, learning rates and multipliers follow from width, depth and density."""

    type: ParametrizationType = "sp"
    """Standard parametrization; maximal update (muP, 2203.03466); muP over sparsity (SmuPar,
    2405.15743); muP over depth (CompleteP, 2505.01618)."""
    base_d_model: Count | None = None
    """Width at which the hyper-parameters were tuned (all but sp)."""
    base_d_ff: PositiveFloat | None = None
    """Feed-forward width at which they were tuned (all but sp); may be a fraction."""
    base_n_layers: Count | None = None
    """Number of blocks at which they were tuned (where depth is scaled)."""
    base_density: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Density at which they were tuned (supar)."""
    init_std: PositiveFloat = 0.02
    """Standard deviation of initial weights at the base width."""
    init: Literal["normal", "truncated_normal"] = "normal"
    """Distribution of initial weights; truncated_normal is cut at two standard deviations."""
    block_output_init_std: PositiveFloat | None = None
    """Replaces the table's standard deviation of the matrices that write the residual stream."""
    learning_rate: PositiveFloat
    """Peak learning rate at the base width."""
    embedding_multiplier: PositiveFloat = 1.0
    """Multiplies the sum of token and position embeddings (all but sp)."""
    output_multiplier: PositiveFloat = 1.0
    """Multiplies the logits, before the division by the width multiplier (all but sp)."""
    attention_multiplier: PositiveFloat = 1.0
    """Multiplies the attention logits, before the division by head_dim (all but sp)."""
    depth_exponent: Annotated[float, Field(ge=0.5, le=1)] | None = None
    """Residual branches are divided by the depth multiplier to this power: 1 (CompleteP's own,
    the default of completep) to 0.5; on supar it composes the two."""
    weight_decay_scaling: Scaling | None = None
    """width: weight decay of hidden matrices grows with the width multiplier that their learning
    rate is divided by (not with density). Default: width where depth is scaled, else none."""
    epsilon_scaling: Scaling | None = None
    """width: Adam's epsilon of the blocks shrinks with the width multiplier, and with the
    residual multiplier. Default: width where depth is scaled, else none."""

    @property
    def depth_power(self) -> float | None:
        """The exponent of the depth rules; None where depth is not scaled."""
        if self.type == "completep":
            return 1.0 if self.depth_exponent is None else self.depth_exponent
        return self.depth_exponent

    @property
    def scales_weight_decay(self) -> bool:
        """Whether hidden weight decay grows with width."""
        return self._scales(self.weight_decay_scaling)

    @property
    def scales_epsilon(self) -> bool:
        """Whether the blocks' epsilon shrinks with width and depth."""
        return self._scales(self.epsilon_scaling)

    @property
    def warnings(self) -> list[str]:
        """Values far outside of what anyone has trained with, a line each."""
        return [
            f"parametrization.{name}: {value:g} is far above what models are trained with (at most "
            f"{limit:g}); the loss will most likely not be finite, or never fall"
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
            raise ValueError("base_n_layers: the depth rules need it")
        return self

    @model_validator(mode="after")
    def _fields_have_a_meaning(self) -> Self:
        changed = [name for name in FORWARD_FIELDS if getattr(self, name) != 1.0]
        changed += [name for name in SCALING_FIELDS if getattr(self, name) == "width"]
        if self.type == "sp" and changed:
            raise ValueError(f"{changed[0]}: has no meaning under sp; choose type: mup")
        if self.type in ("sp", "mup") and self.depth_exponent is not None:
            raise ValueError(
                f"depth_exponent: has no meaning under {self.type}; choose type: completep, or "
                "supar to compose the two"
            )
        if self.type != "supar" and self.base_density != 1.0:
            raise ValueError(f"base_density: has no meaning under {self.type}; choose type: supar")
        return self
