"""The parameter rows of a decoder from its settings alone, without torch.

They are the very rows that ``module_rows`` reads off the module, in the same order; a test holds
the two equal, so a planner may count and scale without building anything.
"""

from collections.abc import Iterator

from feldspar.core.errors import UserError
from feldspar.core.rows import FanIn, ModelShapes, ParameterRow, Role
from feldspar.recipe.sections.model import LearnedPositions, ModelSettings

SOFT_PROMPT = "soft_prompt.weight"
"""The name of the learned vectors' table."""


def model_shapes(settings: ModelSettings, soft_prompt_length: int = 0) -> ModelShapes:
    """Every parameter of the decoder that ``settings`` describe, with a soft prompt or without.

    Raises UserError when ``vocab_size`` is not resolved.
    """
    return ModelShapes(
        d_model=settings.d_model,
        d_ff=settings.d_ff,
        n_layers=settings.n_layers,
        head_dim=settings.head_width,
        rows=tuple(_rows(settings, soft_prompt_length)),
    )


def resolved_vocab_size(settings: ModelSettings) -> int:
    """The rows of the embedding. Raises UserError when they are left to the tokenizer."""
    if settings.vocab_size is None:
        raise UserError(
            "the model's vocab_size is not set",
            do="set model.vocab_size, or let the tokenizer of the shards fill it in",
        )
    return settings.vocab_size


def _rows(settings: ModelSettings, soft_prompt_length: int) -> Iterator[ParameterRow]:
    d_model, vocab_size = settings.d_model, resolved_vocab_size(settings)
    yield ParameterRow("token_embedding.weight", Role.EMBEDDING, (vocab_size, d_model))
    if isinstance(settings.positions, LearnedPositions):
        shape = (settings.max_sequence_length, d_model)
        yield ParameterRow("position_embedding.weight", Role.POSITION, shape)
    for index in range(settings.n_layers):
        yield from _block_rows(settings, f"blocks.{index}")
    yield from _norm_rows(settings, "final_norm", in_block=False)
    if not settings.tied_embeddings:
        yield ParameterRow("output.weight", Role.OUTPUT, (vocab_size, d_model))
    if soft_prompt_length:
        yield ParameterRow(SOFT_PROMPT, Role.PROMPT, (soft_prompt_length, d_model))


def _block_rows(settings: ModelSettings, block: str) -> Iterator[ParameterRow]:
    d_model, d_ff = settings.d_model, settings.d_ff
    query_width = settings.n_heads * settings.head_width
    key_width = settings.kv_heads * settings.head_width
    inner = 2 * d_ff if settings.feed_forward == "swiglu" else d_ff
    yield from _norm_rows(settings, f"{block}.attention_norm", in_block=True)
    fused = (query_width + 2 * key_width, d_model)
    yield from _linear_rows(settings, f"{block}.attention.query_key_value", fused)
    yield from _linear_rows(
        settings, f"{block}.attention.output", (d_model, query_width), writes_residual=True
    )
    yield from _norm_rows(settings, f"{block}.feed_forward_norm", in_block=True)
    yield from _linear_rows(settings, f"{block}.feed_forward.input", (inner, d_model))
    yield from _linear_rows(
        settings,
        f"{block}.feed_forward.output",
        (d_model, d_ff),
        fan_in=FanIn.D_FF,
        writes_residual=True,
    )


def _linear_rows(
    settings: ModelSettings,
    name: str,
    shape: tuple[int, int],
    fan_in: FanIn = FanIn.D_MODEL,
    writes_residual: bool = False,
) -> Iterator[ParameterRow]:
    yield ParameterRow(f"{name}.weight", Role.HIDDEN, shape, fan_in, True, writes_residual)
    if settings.bias:
        yield ParameterRow(f"{name}.bias", Role.BIAS, shape[:1], in_block=True)


def _norm_rows(settings: ModelSettings, name: str, in_block: bool) -> Iterator[ParameterRow]:
    shape = (settings.d_model,)
    yield ParameterRow(f"{name}.weight", Role.NORM, shape, in_block=in_block, initial_mean=1.0)
    if settings.norm.type == "layer" and settings.bias:
        yield ParameterRow(f"{name}.bias", Role.NORM, shape, in_block=in_block)
