"""Falcon (`FalconForCausalLM`) in its old and its new form, with rotary positions or ALiBi.

Falcon adds ALiBi's biases before it divides scores by sqrt(head_dim), so its slopes are smaller by
that factor (``slope_multiplier``). It rounds slopes and biases to bfloat16 (``rounded``).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.huggingface.activations import PLAIN, activation_name, feed_forward_of
from feldspar.huggingface.adapter import Adapter, ModelDescription, require_values
from feldspar.huggingface.rope_parameters import rope_parameters, rope_scaling
from feldspar.huggingface.tensor_rules import (
    TensorRule,
    in_each_block,
    linear,
    query_key_value_groups,
)
from feldspar.recipe.sections.block_parts import Biases
from feldspar.recipe.sections.model import (
    AlibiPositions,
    ModelSettings,
    NormSettings,
    RotaryPositions,
)
from feldspar.recipe.sections.position_scaling import NoScaling, PositionScaling

GROUPED, PARALLEL, MULTI_QUERY = "new_decoder_architecture", "parallel_attn", "multi_query"
NORMS = "num_ln_in_parallel_attn"


class FalconAdapter(Adapter):
    """Adapter to Falcon; a group of its fused matrix holds the queries of a key head, the key and
    the value."""

    model_type = "falcon"
    hf_class = "FalconForCausalLM"
    prefix = "transformer."
    ignored = (r"lm_head\.weight",)

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        settings = description.settings
        positions = settings.positions
        rotary = positions if isinstance(positions, RotaryPositions) else RotaryPositions()
        return {
            "model_type": self.model_type,
            "architectures": [self.hf_class],
            "vocab_size": settings.vocab_size,
            "max_position_embeddings": settings.max_sequence_length,
            "hidden_size": settings.d_model,
            "num_hidden_layers": settings.n_layers,
            "num_attention_heads": settings.n_heads,
            "ffn_hidden_size": settings.d_ff,
            "activation": activation_name(settings.feed_forward, PLAIN),
            "layer_norm_epsilon": settings.norm.epsilon,
            "alibi": isinstance(positions, AlibiPositions),
            "rope_theta": rotary.base,
            "rope_parameters": rope_parameters(description.scaling, rotary.base),
            "bias": settings.biases.feed_forward,
            "hidden_dropout": settings.dropout,
            "attention_dropout": settings.dropout,
            "tie_word_embeddings": settings.tied_embeddings,
            **_form(settings),
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        d_model, n_heads = configuration["hidden_size"], configuration["num_attention_heads"]
        positions, scaling = _positions(configuration, d_model // n_heads)
        bias = configuration.get("bias", False)
        settings = ModelSettings(
            n_layers=configuration["num_hidden_layers"],
            d_model=d_model,
            n_heads=n_heads,
            n_kv_heads=_key_heads(configuration),
            d_ff=configuration.get("ffn_hidden_size") or 4 * d_model,
            vocab_size=configuration["vocab_size"],
            max_sequence_length=configuration.get("max_position_embeddings", 2048),
            positions=positions,
            feed_forward=feed_forward_of(configuration, "activation", PLAIN, "gelu"),
            norm=NormSettings(epsilon=configuration.get("layer_norm_epsilon", 1e-5)),
            branches=_branches(configuration),
            bias=Biases(norm=True, query_key_value=bias, attention_output=bias, feed_forward=bias),
            tied_embeddings=configuration.get("tie_word_embeddings", True),
        )
        return ModelDescription(settings, scaling=scaling)

    def tensor_rules(self, settings: ModelSettings) -> tuple[TensorRule, ...]:
        """Return a rule for each tensor."""
        return tuple(_rules(settings))


def _form(settings: ModelSettings) -> dict[str, Any]:
    """Return the keys of the old form where it can express the model, else those of the new."""
    old = settings.branches != "parallel" and settings.kv_heads in (1, settings.n_heads)
    return {
        GROUPED: not old,
        PARALLEL: settings.branches != "sequential",
        MULTI_QUERY: settings.kv_heads == 1,
        NORMS: 2 if settings.branches == "parallel" else 1,
        "num_kv_heads": settings.kv_heads,
    }


def _branches(configuration: Mapping[str, Any]) -> Any:
    parallel, norms = configuration.get(PARALLEL, True), configuration.get(NORMS)
    if configuration.get(GROUPED, False):
        require_values({PARALLEL: parallel, NORMS: norms}, {PARALLEL: (True,), NORMS: (None, 1, 2)})
        return "parallel_one_norm" if norms == 1 else "parallel"
    if not parallel:
        return "sequential"
    require_values({NORMS: norms}, {NORMS: (None, 1)})
    return "parallel_one_norm"


def _key_heads(configuration: Mapping[str, Any]) -> int:
    n_heads = configuration["num_attention_heads"]
    found = configuration.get("num_kv_heads") or n_heads
    if configuration.get(GROUPED, False):
        return found
    if configuration.get(MULTI_QUERY, True):
        return 1
    if found != n_heads:
        raise UserError(
            f"config.json: num_kv_heads is {found}, but the model has a key head for each of "
            f"{n_heads} query heads",
            do=f"set num_kv_heads to {n_heads}, or {GROUPED} to true if the weights are grouped",
        )
    return n_heads


def _positions(
    configuration: Mapping[str, Any], width: int
) -> tuple[AlibiPositions | RotaryPositions, PositionScaling]:
    if configuration.get("alibi", False):
        alibi = AlibiPositions(slope_multiplier=1 / math.sqrt(width), rounded=True)
        return alibi, NoScaling()
    rope = configuration.get("rope_parameters") or {}
    base = rope.get("rope_theta", configuration.get("rope_theta", 10000.0))
    return RotaryPositions(base=float(base)), rope_scaling(configuration)


def _rules(settings: ModelSettings) -> Iterator[TensorRule]:
    yield from linear("token_embedding", "transformer.word_embeddings", False)
    bias, fused = settings.biases.feed_forward, query_key_value_groups(settings)
    names = {
        "sequential": ("input_layernorm", "post_attention_layernorm"),
        "parallel_one_norm": ("input_layernorm",),
        "parallel": ("ln_attn", "ln_mlp"),
    }[settings.branches]
    block = [
        *linear("attention.query_key_value", "self_attention.query_key_value", bias, fused),
        *linear("attention.output", "self_attention.dense", bias),
        *linear("feed_forward.input", "mlp.dense_h_to_4h", bias),
        *linear("feed_forward.output", "mlp.dense_4h_to_h", bias),
    ]
    for ours, theirs in zip(("attention_norm", "feed_forward_norm"), names, strict=False):
        block += linear(ours, theirs, True)
    yield from in_each_block(block, settings, "transformer.h.{}.")
    yield from linear("final_norm", "transformer.ln_f", True)
    if not settings.tied_embeddings:
        yield from linear("output", "lm_head", False)
