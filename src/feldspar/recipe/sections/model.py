"""Shape of the decoder, and how its positions are scaled to longer contexts."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

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


def _divides(value: float) -> float:
    if 0 < value < 1:
        raise ValueError(
            f"the factor divides slopes and frequencies: write {1 / value:g} to reach "
            f"{1 / value:g} times as far, not {value:g}"
        )
    if value < 1:
        raise ValueError(f"{value:g} is no factor: 1 (nothing changes) or more")
    return value


Factor = Annotated[float, AfterValidator(_divides)]
TrainLength = Annotated[int, Field(gt=1, le=2**30)]
Layers = Annotated[int, Field(gt=0, le=10_000)]
Width = Annotated[int, Field(gt=0, le=2**24)]
Rows = Annotated[int, Field(gt=0, le=2**30)]
"""Larger models than these are no models that anyone could hold: a slip of the pen."""


class NoScaling(Settings):
    """Positions as the model was built with."""

    type: Literal["none"] = "none"


class LinearScaling(Settings):
    """Position interpolation (2310.13017): ALiBi slopes, or rotary frequencies, divided by c."""

    type: Literal["linear"]
    factor: Factor | None = None
    """c at every length: length wanted / length trained on."""
    train_length: TrainLength | None = None
    """In place of factor: c = max(1, length / train_length), the length in tokens."""
    scope: Literal["sequence", "query"] = "sequence"
    """Whose length train_length is held against: sequence, that of the whole sequence (the paper);
    query, that up to the query (ours, ALiBi only), causal and so the same with a cache."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.factor is None) == (self.train_length is None):
            raise ValueError("give either factor or train_length")
        if self.scope == "query" and self.train_length is None:
            raise ValueError("scope: query needs train_length; a fixed factor has no scope")
        return self


class NtkScaling(Settings):
    """ALiBi: slopes divided by factor^(rank / (heads - 1)), steep to shallow; rotary: the base
    multiplied by factor^(d / (d - 2)), so that the fastest stays and the slowest is divided."""

    type: Literal["ntk"]
    factor: Factor
    """What the shallowest slope, or the slowest frequency, is divided by."""
    train_length: TrainLength | None = None
    """Rotary only: the factor grows with the sequence, as factor x length / train_length -
    (factor - 1), and is 1 up to train_length tokens."""


class YarnScaling(Settings):
    """Rotary only (2309.00071): slow frequencies divided, fast ones kept, a ramp between them (1 to
    32 turns in train_length); cosine and sine times 0.1 ln factor + 1."""

    type: Literal["yarn"]
    factor: Factor
    """Length wanted / length trained on."""
    train_length: TrainLength
    """Context trained on before scaling, in tokens."""


class Llama3Scaling(Settings):
    """Rotary only (Llama 3.1): slow frequencies divided, fast ones kept, blended in between (1 to 4
    turns in train_length)."""

    type: Literal["llama3"]
    factor: Factor
    """What slow frequencies are divided by."""
    train_length: TrainLength
    """Context trained on before scaling, in tokens."""


PositionScaling = Annotated[
    NoScaling | LinearScaling | NtkScaling | YarnScaling | Llama3Scaling,
    Field(discriminator="type"),
    NameOrMapping,
]


class SoftPromptSettings(Settings):
    """Learned vectors in each pair's sequence, trained with all else (2403.00952)."""

    length: Annotated[int, Field(ge=0, le=2**20)]
    """How many vectors; 0: none. The phases of a run share one table."""
    place: Literal["between", "prefix"] = "between"
    """Between source and target, or before both."""
    initialisation: Literal["normal", "vocabulary"] = "normal"
    """normal: as token embeddings are drawn; vocabulary: random rows of the token table as it is
    when the first phase with a soft prompt begins."""


class NormSettings(Settings):
    """Normalisation before each branch and at the end."""

    type: Literal["layer", "rms"] = "layer"
    """LayerNorm, or RMSNorm (no mean, no bias)."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-5
    """Added to the variance."""


class SlidingWindow(Settings):
    """Layers whose queries see the nearest tokens only (Longformer, 2004.05150, section 3.1)."""

    tokens: Annotated[int, Field(ge=1, le=2**30)]
    """Tokens that a query sees: its own and those just before it."""
    full_every: Annotated[int, Field(ge=2)] | None = None
    """Every n-th layer sees the whole context: with 4, these are layers 4, 8, 12 and so on.
    Default: no layer does."""

    def is_full(self, layer: int) -> bool:
        """Tell whether a layer, counted from 0, sees the whole context."""
        return self.full_every is not None and (layer + 1) % self.full_every == 0


class ModelSettings(Settings):
    """The decoder: sizes, positions, normalisation, feed-forward."""

    n_layers: Layers
    """Blocks of attention and feed-forward."""
    d_model: Width
    """Width of the residual stream."""
    n_heads: Width
    """Query heads."""
    n_kv_heads: Width | None = None
    """Key and value heads (grouped-query attention); default: n_heads."""
    head_dim: Width | None = None
    """Width of one head; default: d_model / n_heads."""
    d_ff: Width
    """Width of the feed-forward layer."""
    vocab_size: Rows | None = None
    """Rows of the embedding; default: the tokenizer's, never smaller."""
    max_sequence_length: Rows
    """Longest context in tokens; rows of a learned position table."""
    positions: Positions = LearnedPositions()
    """How the order of tokens enters: learned, rotary, alibi or none."""
    feed_forward: Literal["gelu", "swiglu"] = "gelu"
    """Feed-forward nonlinearity."""
    norm: Annotated[NormSettings, NameOrMapping] = NormSettings()
    """Normalisation: layer or rms, and its epsilon. Default: layer, or rms where positions are
    rotary (whole and not interleaved) and feed_forward is swiglu, which together is Llama."""
    bias: bool = True
    """Biases on all linear maps of the blocks (never on the head) and on LayerNorm. Default: true,
    or false where the norm's default is rms."""
    tied_embeddings: bool = True
    """Use the token embedding as the output matrix."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on embeddings, attention probabilities and both branches."""
    sliding_window: SlidingWindow | None = None
    """Let layers see the nearest tokens only. Default: every layer sees the whole context."""

    @property
    def kv_heads(self) -> int:
        """Key and value heads, the default resolved."""
        return self.n_kv_heads or self.n_heads

    @property
    def head_width(self) -> int:
        """Width of one head, the default resolved."""
        return self.head_dim or self.d_model // self.n_heads

    def window_of(self, layer: int) -> int | None:
        """Return the tokens that a query of a layer sees; None for the whole context."""
        window = self.sliding_window
        return None if window is None or window.is_full(layer) else window.tokens

    def scored_keys(self, context_length: int) -> int:
        """Return the keys that a query is compared with, summed over the layers.

        The count is that of full score matrices: causality is left out.
        """
        return sum(self._spans(context_length))

    def scored_keys_if_causal(self, context_length: int) -> float:
        """Return ``scored_keys`` less the keys after the query, on average over the queries.

        It is the area of a triangle, or of a band in a layer with a window, divided by the context;
        entries on an edge count half.
        """
        return sum(
            span - span * span / (2 * context_length) for span in self._spans(context_length)
        )

    def _spans(self, context_length: int) -> list[int]:
        windows = map(self.window_of, range(self.n_layers))
        return [min(window or context_length, context_length) for window in windows]

    @model_serializer(mode="wrap")
    def _without_absent_window(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a window that is not there: such recipes keep the digests that they had."""
        values = handler(self)
        if self.sliding_window is None:
            values.pop("sliding_window", None)
        return values

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_llama(cls, value: Any) -> Any:
        """Complete rotary positions with SwiGLU to Llama, which transformers loads by itself."""
        if not isinstance(value, dict) or value.get("feed_forward") != "swiglu":
            return value
        if not _whole_rotary(value.get("positions")):
            return value
        norm = value.get("norm", "rms")
        if isinstance(norm, dict):
            norm = {"type": "rms"} | norm
        return {"bias": False} | value | {"norm": norm}

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

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        window = self.sliding_window
        if window is None:
            return self
        if window.tokens > self.max_sequence_length:
            raise ValueError(
                f"sliding_window.tokens: {window.tokens} are more than max_sequence_length, "
                f"{self.max_sequence_length}: no token would be hidden; leave sliding_window out"
            )
        if window.full_every is not None and window.full_every > self.n_layers:
            raise ValueError(
                f"sliding_window.full_every: no layer of {self.n_layers} is the "
                f"{window.full_every}th; choose a smaller number, or leave full_every out"
            )
        return self


def _whole_rotary(positions: Any) -> bool:
    """Tell of positions as they are written whether they are rotary, as Llama's are."""
    if isinstance(positions, RotaryPositions):
        positions = positions.model_dump()
    if not isinstance(positions, dict):
        return positions == "rotary"
    whole = positions.get("fraction", 1.0) == 1.0 and not positions.get("interleaved", False)
    return positions.get("type") == "rotary" and whole


def scaling_misfit(scaling: PositionScaling, model: ModelSettings) -> str | None:
    """Why ``scaling`` cannot be applied to the positions of ``model``; None when it can."""
    kind = model.positions.type
    if isinstance(scaling, NoScaling):
        return None
    if kind not in ("alibi", "rotary"):
        return f"{scaling.type} scales ALiBi or rotary positions; these are {kind}"
    if kind == "alibi":
        if isinstance(scaling, YarnScaling | Llama3Scaling):
            return f"{scaling.type} scales rotary positions; these are alibi"
        if isinstance(scaling, NtkScaling) and scaling.train_length is not None:
            return "ntk with train_length scales rotary positions; these are alibi"
        if isinstance(scaling, NtkScaling) and model.n_heads == 1:
            return "ntk spreads its factor over the heads; there is only one"
        return None
    if isinstance(scaling, LinearScaling) and scaling.scope == "query":
        return "scope query needs alibi: rotary keys are turned once, for all queries"
    if isinstance(scaling, NtkScaling) and rotated_width(model) == 2:
        return "ntk spreads its factor over the frequencies; there is only one"
    return None


def rotated_width(model: ModelSettings) -> int:
    """Dimensions of a head that rotary positions turn; 0 for other positions."""
    kind = model.positions
    return round(kind.fraction * model.head_width) if isinstance(kind, RotaryPositions) else 0
