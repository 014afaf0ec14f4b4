"""Shape of the decoder."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from feldspar.recipe.base import NameOrMapping, Settings


class LearnedPositions(Settings):
    """A trained table of ``max_sequence_length`` vectors, added to the token embeddings."""

    type: Literal["learned"] = "learned"


class RotaryPositions(Settings):
    """Rotary embedding of queries and keys (RoPE)."""

    type: Literal["rotary"] = "rotary"
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of every head's dimensions that is rotated; the rest passes through."""
    base: Annotated[float, Field(gt=1)] = 10000.0
    """Wavelength base of the rotary frequencies."""
    interleaved: bool = False
    """Pair neighbouring dimensions (GPT-J, Crystal) instead of the two halves (Llama)."""


class AlibiPositions(Settings):
    """Attention with linear biases (ALiBi, 2108.12409): one slope per query head."""

    type: Literal["alibi"] = "alibi"
    max_exponent: Annotated[float, Field(gt=0)] = 8.0
    """The shallowest slope is 2 to the minus this number."""


class NoPositions(Settings):
    """No position information except the causal mask."""

    type: Literal["none"] = "none"


Positions = Annotated[
    LearnedPositions | RotaryPositions | AlibiPositions | NoPositions,
    Field(discriminator="type"),
    NameOrMapping,
]


class NormSettings(Settings):
    """Normalisation before each branch and at the end."""

    type: Literal["layer", "rms"] = "layer"
    """LayerNorm, or RMSNorm (no mean, no bias)."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-5
    """Added to the variance."""


class ModelSettings(Settings):
    """The decoder: sizes, positions, normalisation, feed-forward."""

    n_layers: PositiveInt
    """Blocks of attention and feed-forward."""
    d_model: PositiveInt
    """Width of the residual stream."""
    n_heads: PositiveInt
    """Query heads."""
    n_kv_heads: PositiveInt | None = None
    """Key and value heads (grouped-query attention); default: n_heads."""
    head_dim: PositiveInt | None = None
    """Width of one head; default: d_model / n_heads."""
    d_ff: PositiveInt
    """Width of the feed-forward layer."""
    vocab_size: PositiveInt | None = None
    """Rows of the embedding; default: the tokenizer's, never smaller."""
    max_sequence_length: PositiveInt
    """Longest context in tokens; rows of a learned position table."""
    positions: Positions = LearnedPositions()
    """How the order of tokens enters: learned, rotary, alibi or none."""
    feed_forward: Literal["gelu", "swiglu"] = "gelu"
    """Feed-forward nonlinearity."""
    norm: Annotated[NormSettings, NameOrMapping] = NormSettings()
    """Normalisation: layer or rms, and its epsilon."""
    bias: bool = True
    """Biases on all linear maps of the blocks (never on the head) and on LayerNorm."""
    tied_embeddings: bool = True
    """Use the token embedding as the output matrix."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on embeddings, attention probabilities and both branches."""

    @property
    def kv_heads(self) -> int:
        """Key and value heads, the default resolved."""
        return self.n_kv_heads or self.n_heads

    @property
    def head_width(self) -> int:
        """Width of one head, the default resolved."""
        return self.head_dim or self.d_model // self.n_heads

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.head_dim is None and self.d_model % self.n_heads:
            low = self.d_model // self.n_heads * self.n_heads
            raise ValueError(
                f"n_heads: {self.n_heads} heads do not divide d_model {self.d_model}; "
                f"nearest d_model: {low or self.n_heads} or {low + self.n_heads}"
            )
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"n_kv_heads: {self.kv_heads} key heads do not divide the {self.n_heads} heads"
            )
        if isinstance(self.positions, RotaryPositions):
            rotated = round(self.positions.fraction * self.head_width)
            if rotated % 2 or rotated == 0:
                raise ValueError(
                    f"positions.fraction: rotates {rotated} of {self.head_width} dimensions; "
                    "it must be an even number of at least 2"
                )
        return self
