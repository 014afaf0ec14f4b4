"""Base hyper-parameters and the parametrization that carries them to other sizes."""

from typing import Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from feldspar.recipe.base import Settings

ParametrizationType = Literal["sp", "mup"]


class ParametrizationSettings(Settings):
    """How initial values, learning rates and forward multipliers follow from the width."""

    type: ParametrizationType = "sp"
    """Standard parametrization, or maximal update parametrization (muP, 2203.03466)."""
    base_d_model: PositiveInt | None = None
    """Width at which the hyper-parameters were tuned (muP)."""
    base_d_ff: PositiveFloat | None = None
    """Feed-forward width at which they were tuned (muP); may be a fraction."""
    init_std: PositiveFloat = 0.02
    """Standard deviation of initial weights at the base width."""
    init: Literal["normal", "truncated_normal"] = "normal"
    """Distribution of initial weights; truncated_normal is cut at two standard deviations."""
    block_output_init_std: PositiveFloat | None = None
    """Replaces the table's standard deviation of the matrices that write the residual stream."""
    learning_rate: PositiveFloat
    """Peak learning rate at the base width."""
    embedding_multiplier: PositiveFloat = 1.0
    """Multiplies the sum of token and position embeddings (muP)."""
    output_multiplier: PositiveFloat = 1.0
    """Multiplies the logits, before the division by the width multiplier (muP)."""
    attention_multiplier: PositiveFloat = 1.0
    """Multiplies the attention logits, before the division by head_dim (muP)."""
    weight_decay_scaling: Literal["none", "width"] = "none"
    """width: hidden weight decay grows with the width multiplier, so that rate x decay is kept."""
    epsilon_scaling: Literal["none", "width"] = "none"
    """width: Adam's epsilon of the blocks shrinks with the width multiplier."""

    @model_validator(mode="after")
    def _bases_given(self) -> Self:
        bases = {"base_d_model": self.base_d_model, "base_d_ff": self.base_d_ff}
        missing = [name for name, value in bases.items() if value is None]
        if self.type != "sp" and missing:
            raise ValueError(f"{missing[0]}: {self.type} needs {' and '.join(bases)}")
        changed = [
            name
            for name in ("embedding_multiplier", "output_multiplier", "attention_multiplier")
            if getattr(self, name) != 1.0
        ]
        if self.type == "sp" and changed:
            raise ValueError(f"{changed[0]}: has no meaning under sp; choose type: mup")
        return self
