"""Settings of parts of a block: norms, biases, windows of attention."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from feldspar.recipe.base import Settings, without_defaults


class NormSettings(Settings):
    """Normalisation of each residual branch, and after the last block."""

    type: Literal["layer", "rms"] = "layer"
    """layer: LayerNorm. rms: RMSNorm (no mean, no bias)."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-5
    """Number added to the variance."""
    place: Literal["before", "after", "both"] = "before"
    """Normalise the input of each branch, its output (OLMo 2), or both (Gemma 2)."""
    unit_offset: bool = False
    """RMSNorm multiplies by 1 + weight instead of by weight (Gemma)."""

    @model_validator(mode="after")
    def _offset_of_rms(self) -> Self:
        if self.unit_offset and self.type != "rms":
            raise ValueError("unit_offset: it works with type: rms only; remove it")
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ("place", "unit_offset"))


class Biases(Settings):
    """Parts of the model that have biases."""

    norm: bool = False
    """LayerNorms."""
    query_key_value: bool = False
    """The maps to queries, keys and values."""
    attention_output: bool = False
    """The map from the heads to the residual stream."""
    feed_forward: bool = False
    """All maps of the feed-forward layer."""


class ReversibleSettings(Settings):
    """Two residual streams, whose earlier values the backward pass computes from the later ones.

    Both streams are as wide as the residual stream of the plain decoder and begin as the
    embeddings; the final norm reads their mean. So weights, their names and their number are those
    of the plain decoder, and only the order in which layers read each other's output differs.
    """

    type: Literal["revnet", "reformer"] = "revnet"
    """revnet (1707.04585): a whole layer reads one stream and adds to the other, in turn, so that
    any kind of layer works. reformer (2001.04451): attention reads the second stream and adds to
    the first, the feed-forward layer the reverse; a backward pass then holds the activations of
    half a layer at a time. It needs branches: sequential."""
    fixed_point_bits: Annotated[int, Field(ge=1, le=22)] | None = None
    """Round all sums to multiples of 2^-bits, so that rebuilt streams equal the first ones bit for
    bit, as training in bfloat16 needs. 14 allows values up to 1024. Default: no rounding; in
    float32 the gradients then differ by rounding only."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ("fixed_point_bits",))


class SlidingWindow(Settings):
    """Layers whose queries see the nearest tokens only (Longformer, 2004.05150, section 3.1)."""

    tokens: Annotated[int, Field(ge=1, le=2**30)]
    """Tokens that a query sees: its own and those just before it."""
    full_every: Annotated[int, Field(ge=2)] | None = None
    """Every n-th layer sees the whole context: with 4, these are layers 4, 8, 12 and so on.
    Default: no layer does."""
    full_layers: tuple[int, ...] | None = None
    """Layers, counted from 0, that see the whole context, instead of full_every."""

    def is_full(self, layer: int) -> bool:
        """Tell whether a layer, counted from 0, sees the whole context."""
        if self.full_layers is not None:
            return layer in self.full_layers
        return self.full_every is not None and (layer + 1) % self.full_every == 0

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.full_every is not None and self.full_layers is not None:
            raise ValueError("give either full_every or full_layers")
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ("full_layers",))
