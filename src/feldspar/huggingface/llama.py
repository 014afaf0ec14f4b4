"""Llama and Ministral: rotary halves, RMSNorm, SwiGLU, grouped queries."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from feldspar.huggingface.adapter import Adapter, ModelDescription, require_values
from feldspar.huggingface.declared import declared_parametrization
from feldspar.huggingface.layer_types import layer_types, window_of
from feldspar.huggingface.rope_parameters import rope_parameters, rope_scaling
from feldspar.huggingface.tensor_rules import (
    TensorRule,
    gate_and_up_rows,
    in_each_block,
    linear,
    query_key_value_rows,
)
from feldspar.model.export_class import LLAMA, MINISTRAL, llama_misfits, ministral_misfits
from feldspar.recipe.sections.block_parts import Biases, NormSettings
from feldspar.recipe.sections.model import ModelSettings, PositionScaling, RotaryPositions


class LlamaAdapter(Adapter):
    """Adapter to Llama's names; fused matrices are split by rows."""

    model_type = "llama"
    hf_class = LLAMA
    prefix = "model."
    ignored = (r".*\.rotary_emb\.inv_freq", r"lm_head\.weight")

    def misfits(self, settings: ModelSettings, scaling: PositionScaling) -> list[str]:
        """List the settings that the class would need; empty when it can express them."""
        return llama_misfits(settings, scaling)

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        settings = description.settings
        base = rotary_of(settings).base
        parameters = rope_parameters(description.scaling, base)
        older = {"rope_scaling": parameters} if parameters["rope_type"] != "default" else {}
        return {
            "model_type": self.model_type,
            "architectures": [self.hf_class],
            "vocab_size": settings.vocab_size,
            "max_position_embeddings": settings.max_sequence_length,
            "hidden_size": settings.d_model,
            "num_hidden_layers": settings.n_layers,
            "num_attention_heads": settings.n_heads,
            "num_key_value_heads": settings.kv_heads,
            "head_dim": settings.head_width,
            "intermediate_size": settings.d_ff,
            "hidden_act": "silu",
            "rms_norm_eps": settings.norm.epsilon,
            # The older and the newer places of the same numbers.
            "rope_theta": base,
            "rope_parameters": parameters,
            **older,
            "attention_bias": settings.biases.attention_output,
            "mlp_bias": settings.biases.feed_forward,
            "tie_word_embeddings": settings.tied_embeddings,
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        require_values(configuration, {"hidden_act": ("silu", "swish")})
        rope = configuration.get("rope_parameters") or {}
        base = rope.get("rope_theta", configuration.get("rope_theta", 10000.0))
        attention = configuration.get("attention_bias", False)
        feed_forward = configuration.get("mlp_bias", False)
        settings = ModelSettings(
            n_layers=configuration["num_hidden_layers"],
            d_model=configuration["hidden_size"],
            n_heads=configuration["num_attention_heads"],
            n_kv_heads=configuration.get("num_key_value_heads"),
            head_dim=configuration.get("head_dim"),
            d_ff=configuration["intermediate_size"],
            vocab_size=configuration["vocab_size"],
            max_sequence_length=configuration["max_position_embeddings"],
            positions=RotaryPositions(base=float(base)),
            feed_forward="swiglu",
            norm=NormSettings(type="rms", epsilon=configuration.get("rms_norm_eps", 1e-6)),
            bias=biases(norm=attention, attention=attention, feed_forward=feed_forward),
            tied_embeddings=configuration.get("tie_word_embeddings", False),
        )
        parametrization = declared_parametrization(configuration, settings)
        return ModelDescription(settings, parametrization, rope_scaling(configuration))

    def tensor_rules(self, settings: ModelSettings) -> tuple[TensorRule, ...]:
        """Return a rule for each tensor."""
        return tuple(_rules(settings))


class MinistralAdapter(LlamaAdapter):
    """Adapter to Ministral: Llama without biases, with a sliding window."""

    model_type = "ministral"
    hf_class = MINISTRAL

    def misfits(self, settings: ModelSettings, scaling: PositionScaling) -> list[str]:
        """List the settings that the class would need; empty when it can express them."""
        return ministral_misfits(settings, scaling)

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        return super().to_configuration(description) | layer_types(description.settings)

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        window = window_of(configuration)
        found = super().from_configuration(configuration)
        values = found.settings.model_dump(exclude_none=True)
        settings = ModelSettings.model_validate(values | {"sliding_window": window})
        return replace(found, settings=settings)


def biases(norm: bool, attention: bool, feed_forward: bool) -> bool | Biases:
    """Return the setting ``bias``: one truth value where all parts are alike."""
    if norm == attention == feed_forward:
        return norm
    return Biases(
        norm=norm,
        query_key_value=attention,
        attention_output=attention,
        feed_forward=feed_forward,
    )


def rotary_of(settings: ModelSettings) -> RotaryPositions:
    """Return the rotary positions; the default ones for a model that has others."""
    positions = settings.positions
    return positions if isinstance(positions, RotaryPositions) else RotaryPositions()


def _rules(settings: ModelSettings) -> Iterator[TensorRule]:
    yield TensorRule("token_embedding.weight", ("model.embed_tokens.weight",))
    yield TensorRule("final_norm.weight", ("model.norm.weight",))
    if not settings.tied_embeddings:
        yield TensorRule("output.weight", ("lm_head.weight",))
    attention, feed_forward = settings.biases.attention_output, settings.biases.feed_forward
    queries = query_key_value_rows(settings)
    projections = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    gated = ("mlp.gate_proj", "mlp.up_proj")
    block = [
        *linear("attention_norm", "input_layernorm", False),
        *linear("feed_forward_norm", "post_attention_layernorm", False),
        *linear("attention.query_key_value", projections, attention, queries),
        *linear("attention.output", "self_attn.o_proj", attention),
        *linear("feed_forward.input", gated, feed_forward, gate_and_up_rows(settings)),
        *linear("feed_forward.output", "mlp.down_proj", feed_forward),
    ]
    yield from in_each_block(block, settings, "model.layers.{}.")
