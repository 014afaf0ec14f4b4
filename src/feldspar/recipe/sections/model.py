"""Settings of the decoder's shape."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from feldspar.recipe.base import NameOrMapping, Settings, without_defaults
from feldspar.recipe.sections.block_parts import (
    Biases,
    NormSettings,
    ReversibleSettings,
    SlidingWindow,
)
from feldspar.recipe.sections.iso_flop import WIDTHS, IsoFlopSettings, wide_misfit, widened


class LearnedPositions(Settings):
    """A trained table of ``max_sequence_length`` vectors, added to the token embeddings."""

    type: Literal["learned"] = "learned"


class RotaryPositions(Settings):
    """Rotary embedding of queries and keys (RoPE)."""

    type: Literal["rotary"] = "rotary"
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each head's dimensions that is rotated; the rest is left unchanged."""
    base: Annotated[float, Field(gt=1)] = 10000.0
    """Base of the rotary frequencies; a larger base gives longer wavelengths."""
    interleaved: bool = False
    """Pair neighbouring dimensions (GPT-J, Crystal) instead of the two halves (Llama)."""
    window_base: Annotated[float, Field(gt=1)] | None = None
    """Base in layers with a sliding window (Gemma 3), where positions are never scaled. Default: as
    in the other layers."""
    layers_without: tuple[int, ...] = ()
    """Layers, counted from 0, that rotate nothing and so have no positions (NoPE, as in SmolLM3).
    """

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ("window_base", "layers_without"))


class AlibiPositions(Settings):
    """Attention with linear biases (ALiBi, 2108.12409): one slope per query head."""

    type: Literal["alibi"] = "alibi"
    max_exponent: Annotated[float, Field(gt=0)] = 8.0
    """The smallest slope is 2 to the power of minus this number."""
    slope_multiplier: Annotated[float, Field(gt=0)] = 1.0
    """Multiplies every slope; 1 / sqrt(head_dim) in Falcon."""
    rounded: bool = False
    """Round slopes, positions of keys, and their products to bfloat16 before slope_multiplier, in
    any precision (Falcon). Positions count from the beginning of a document."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ("slope_multiplier", "rounded"))


class NoPositions(Settings):
    """No position information except the causal mask."""

    type: Literal["none"] = "none"


Positions = Annotated[
    LearnedPositions | RotaryPositions | AlibiPositions | NoPositions,
    Field(discriminator="type"),
    NameOrMapping,
]


Layers = Annotated[int, Field(gt=0, le=10_000)]
Width = Annotated[int, Field(gt=0, le=2**24)]
Rows = Annotated[int, Field(gt=0, le=2**30)]
"""Upper limits that catch a mistyped number: no machine could hold a larger model."""


class SoftPromptSettings(Settings):
    """Learned vectors in the sequence of each pair, trained with the other weights (2403.00952)."""

    length: Annotated[int, Field(ge=0, le=2**20)]
    """Number of vectors; 0: none. All phases of a run share one table."""
    place: Literal["between", "prefix"] = "between"
    """Position of the vectors: between source and target, or before both."""
    initialisation: Literal["normal", "vocabulary"] = "normal"
    """normal: the same distribution as token embeddings. vocabulary: random rows of the token
    embedding, taken when the first phase with a soft prompt begins."""


def _reversible_from_bool(value: Any) -> Any:
    """Read true as the settings' defaults and false as no settings."""
    return ({} if value else None) if isinstance(value, bool) else value


FeedForwardKind = Literal["gelu", "gelu_erf", "relu", "swiglu", "geglu", "geglu_erf"]
GATED = ("swiglu", "geglu", "geglu_erf")
LATER_SETTINGS = (
    "query_key_norm",
    "branches",
    "embedding_norm",
    "sliding_window",
    "attention_soft_cap",
    "logit_soft_cap",
    "sparse_iso_flop",
    "reversible",
)
"""Settings that are written only where they differ from their default."""


class ModelSettings(Settings):
    """The decoder: sizes, positions, normalisation, feed-forward layer."""

    n_layers: Layers
    """Number of blocks; each has attention and a feed-forward layer."""
    d_model: Width
    """Width of the residual stream."""
    n_heads: Width
    """Number of query heads."""
    n_kv_heads: Width | None = None
    """Number of key and value heads (grouped-query attention); default: n_heads."""
    head_dim: Width | None = None
    """Width of one head; default: d_model / n_heads."""
    d_ff: Width
    """Hidden width of the feed-forward layer."""
    vocab_size: Rows | None = None
    """Rows of the embedding; default: the size of the tokenizer's vocabulary. It may not be smaller
    than that."""
    max_sequence_length: Rows
    """Longest context in tokens; also the number of rows of a learned position table."""
    positions: Positions = LearnedPositions()
    """Position encoding: learned, rotary, alibi or none."""
    feed_forward: FeedForwardKind = "gelu"
    """Nonlinearity of the feed-forward layer: gelu (its tanh form), gelu_erf (its exact form) or
    relu; with a gate swiglu, geglu (tanh form) or geglu_erf (2002.05202)."""
    norm: Annotated[NormSettings, NameOrMapping] = NormSettings()
    """Normalisation and its epsilon: layer or rms. Default: layer. The default is rms where
    feed_forward is swiglu and positions are rotary, complete and not interleaved, as in Llama."""
    query_key_norm: Literal["none", "head", "whole"] = "none"
    """Normalise queries and keys before they are rotated: each head by itself, with one gain for
    all heads (Qwen 3), or all heads together (OLMo 2)."""
    branches: Literal["sequential", "parallel", "parallel_one_norm"] = "sequential"
    """sequential: the feed-forward layer reads what attention has written. parallel: both read the
    same residual stream, each through its own norm (GPT-NeoX). parallel_one_norm: through one norm
    (Falcon)."""
    embedding_norm: bool = False
    """Normalise the embeddings before the first block (BLOOM)."""
    bias: bool | Biases = True
    """Use biases in LayerNorm and in all linear maps of the blocks (never in the head), or only in
    the parts that a mapping names. Default: true; false where rms is the default of norm."""
    tied_embeddings: bool = True
    """Use the token embedding as the output matrix too."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout rate for embeddings, attention probabilities and both residual branches."""
    sliding_window: SlidingWindow | None = None
    """Let layers see the nearest tokens only. Default: every layer sees the whole context."""
    attention_soft_cap: PositiveFloat | None = None
    """Keep attention scores between minus and plus this number: c tanh(score / c) (Gemma 2).
    Training then keeps all scores for the backward pass. Not with ALiBi."""
    logit_soft_cap: PositiveFloat | None = None
    """Keep the logits between minus and plus this number, in the same way."""
    sparse_iso_flop: IsoFlopSettings | None = None
    """Train a sparse model with the FLOPs of the dense one that this section describes (Sparse-IFT,
    2303.11525). Default: the section's own model."""

    reversible: Annotated[
        ReversibleSettings | None, NameOrMapping, BeforeValidator(_reversible_from_bool)
    ] = None
    """Rebuild activations in the backward pass instead of keeping them, so that their memory does
    not grow with n_layers: true, revnet, reformer, or a mapping. runtime.activation_memory then is
    reversible unless it is set. Default: false, the plain decoder."""

    @property
    def biases(self) -> Biases:
        """The parts that have biases, with true and false written out."""
        if isinstance(self.bias, Biases):
            return self.bias
        return Biases(**dict.fromkeys(Biases.model_fields, self.bias))

    @property
    def gated(self) -> bool:
        """True if the feed-forward layer multiplies its activation by a second map."""
        return self.feed_forward in GATED

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads, with the default filled in."""
        return self.n_kv_heads or self.n_heads

    @property
    def head_width(self) -> int:
        """Width of one head, with the default filled in."""
        return self.head_dim or self.d_model // self.n_heads

    @property
    def dense(self) -> Self:
        """The dense model that sparse_iso_flop stands for; the same model where it is absent."""
        if self.sparse_iso_flop is None:
            return self
        update: dict[str, Any] = {"sparse_iso_flop": None}
        if self.sparse_iso_flop.dense is not None:
            update |= dict(self.sparse_iso_flop.dense)
        return self.model_copy(update=update)

    def window_of(self, layer: int) -> int | None:
        """Return the tokens that a query of a layer sees; None for the whole context."""
        window = self.sliding_window
        return None if window is None or window.is_full(layer) else window.tokens

    def scored_keys(self, context_length: int) -> int:
        """Return the keys that a query is compared with, summed over the layers.

        The count is that of full score matrices: causality is left out.
        """
        return sum(self.keys_by_layer(context_length))

    def scored_keys_if_causal(self, context_length: int) -> float:
        """Return ``scored_keys`` less the keys after the query, on average over the queries.

        It is the area of a triangle, or of a band in a layer with a window, divided by the context;
        entries on an edge count half.
        """
        return sum(self.keys_by_layer_if_causal(context_length))

    def keys_by_layer_if_causal(self, context_length: int) -> list[float]:
        """Return the terms of ``scored_keys_if_causal``."""
        return [
            span - span * span / (2 * context_length) for span in self.keys_by_layer(context_length)
        ]

    def keys_by_layer(self, context_length: int) -> list[int]:
        """Return the terms of ``scored_keys``."""
        windows = map(self.window_of, range(self.n_layers))
        return [min(window or context_length, context_length) for window in windows]

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, LATER_SETTINGS)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_llama(cls, value: Any) -> Any:
        """Fill in Llama's defaults where positions are rotary and the activation is SwiGLU."""
        if not isinstance(value, dict) or value.get("feed_forward") != "swiglu":
            return value
        if not _whole_rotary(value.get("positions")):
            return value
        norm = value.get("norm", "rms")
        if isinstance(norm, dict):
            norm = {"type": "rms"} | norm
        return {"bias": False} | value | {"norm": norm}

    @model_validator(mode="before")
    @classmethod
    def _wide(cls, value: Any) -> Any:
        """Replace the widths of a dense model by those of its wide model."""
        return widened(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _iso_flop_fits(self) -> Self:
        if self.sparse_iso_flop is not None:
            widths = {name: getattr(self, name) for name in WIDTHS}
            rotated = getattr(self.positions, "fraction", 0.0)
            misfit = wide_misfit(self.sparse_iso_flop, widths, self.n_heads, rotated)
            if misfit is not None:
                raise ValueError(misfit)
        return self

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.head_dim is None and self.d_model % self.n_heads:
            low = self.d_model // self.n_heads * self.n_heads
            raise ValueError(
                f"n_heads: d_model {self.d_model} is not a multiple of {self.n_heads} heads; "
                f"nearest d_model: {low or self.n_heads} or {low + self.n_heads}"
            )
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"n_kv_heads: {self.n_heads} query heads are not a multiple of "
                f"{self.kv_heads} key heads"
            )
        if isinstance(self.positions, RotaryPositions):
            rotated = round(self.positions.fraction * self.head_width)
            if rotated % 2 or rotated == 0:
                raise ValueError(
                    f"positions.fraction: it rotates {rotated} of {self.head_width} "
                    "dimensions; the number must be even and at least 2"
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
        self._require_layers("sliding_window.full_layers", window.full_layers or ())
        return self

    @model_validator(mode="after")
    def _positions_fit(self) -> Self:
        positions = self.positions
        if not isinstance(positions, RotaryPositions):
            return self
        self._require_layers("positions.layers_without", positions.layers_without)
        if positions.window_base is not None and self.sliding_window is None:
            raise ValueError("positions.window_base: no layer has a window; set sliding_window")
        return self

    @model_validator(mode="after")
    def _branches_fit(self) -> Self:
        if self.attention_soft_cap is not None and isinstance(self.positions, AlibiPositions):
            raise ValueError("attention_soft_cap: it does not work with ALiBi; remove one of them")
        if self.branches != "sequential" and self.norm.place != "before":
            raise ValueError(
                f"branches: {self.branches} works with norm.place: before only, not "
                f"{self.norm.place}"
            )
        if (
            self.reversible is not None
            and self.reversible.type == "reformer"
            and self.branches != "sequential"
        ):
            raise ValueError(
                f"reversible: reformer works with branches: sequential only, not {self.branches}; "
                "set reversible: revnet"
            )
        return self

    def _require_layers(self, key: str, layers: tuple[int, ...]) -> None:
        """Raise ValueError for numbers that are no layers, or not in ascending order."""
        if list(layers) != sorted(set(layers)):
            raise ValueError(f"{key}: give each layer once, in ascending order")
        if any(layer < 0 or layer >= self.n_layers for layer in layers):
            raise ValueError(
                f"{key}: layers are counted from 0 to {self.n_layers - 1}; found {list(layers)}"
            )


def _whole_rotary(positions: Any) -> bool:
    """Tell whether positions, as a recipe writes them, are rotary in Llama's form."""
    if isinstance(positions, RotaryPositions):
        positions = positions.model_dump()
    if not isinstance(positions, dict):
        return positions == "rotary"
    whole = positions.get("fraction", 1.0) == 1.0 and not positions.get("interleaved", False)
    return positions.get("type") == "rotary" and whole
