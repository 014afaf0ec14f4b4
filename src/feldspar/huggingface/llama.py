"""Llama and Ministral: rotary halves, RMSNorm, SwiGLU, grouped queries."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import require_values
from feldspar.huggingface.layer_types import layer_types, window_of
from feldspar.huggingface.rope_parameters import rope_parameters, rope_scaling
from feldspar.model.export_class import LLAMA, MINISTRAL, llama_misfits, ministral_misfits
from feldspar.recipe.sections.block_parts import NormSettings
from feldspar.recipe.sections.model import ModelSettings, PositionScaling, RotaryPositions

OUTER = {
    "token_embedding.weight": "model.embed_tokens.weight",
    "final_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
NORMS = {
    "attention_norm.weight": "input_layernorm.weight",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
}
LINEARS = {
    "attention.query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.output": ("self_attn.o_proj",),
    "feed_forward.input": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.output": ("mlp.down_proj",),
}


class LlamaAdapter:
    """Adapter to Llama's names; fused matrices are split by rows."""

    model_type = "llama"
    hf_class = LLAMA

    def misfits(self, settings: ModelSettings, scaling: PositionScaling) -> list[str]:
        """List the settings that the class would need; empty when it can express them."""
        return llama_misfits(settings, scaling)

    def to_configuration(self, settings: ModelSettings, scaling: PositionScaling) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        assert isinstance(settings.positions, RotaryPositions), "refused by misfits"
        base = settings.positions.base
        parameters = rope_parameters(scaling, base)
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
            "attention_bias": settings.bias,
            "mlp_bias": settings.bias,
            "tie_word_embeddings": settings.tied_embeddings,
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelSettings:
        """Return our settings. Raises UserError for what we do not compute."""
        require_values(configuration, {"hidden_act": ("silu", "swish")})
        rope = configuration.get("rope_parameters") or {}
        base = rope.get("rope_theta", configuration.get("rope_theta", 10000.0))
        biased = configuration.get("attention_bias", False) or configuration.get("mlp_bias", False)
        return ModelSettings(
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
            bias=biased,
            tied_embeddings=configuration.get("tie_word_embeddings", False),
        )

    def scaling_of(self, configuration: Mapping[str, Any]) -> PositionScaling:
        """Return the scaling of positions. Raises UserError for what we do not compute."""
        return rope_scaling(configuration)

    def to_hf(self, state: Mapping[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
        """Return our tensors under Llama's names."""
        renamed = {theirs: state[name] for name, theirs in OUTER.items() if name in state}
        for index in range(settings.n_layers):
            ours, layer = f"blocks.{index}.", f"model.layers.{index}."
            renamed |= {layer + theirs: state[ours + name] for name, theirs in NORMS.items()}
            for name, parts in LINEARS.items():
                for kind in _kinds(settings):
                    pieces = state[f"{ours}{name}.{kind}"].split(_rows(name, settings))
                    for part, piece in zip(parts, pieces, strict=True):
                        renamed[f"{layer}{part}.{kind}"] = piece
        return renamed

    def from_hf(self, state: Mapping[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
        """Return Llama's tensors under our names; a bias that a branch lacks becomes 0."""
        found = {name: state[name] for name in state if not name.endswith(".rotary_emb.inv_freq")}
        if settings.tied_embeddings:
            found.pop("lm_head.weight", None)
        ours = {
            name: _take(found, theirs)
            for name, theirs in OUTER.items()
            if name != "output.weight" or not settings.tied_embeddings
        }
        for index in range(settings.n_layers):
            block, layer = f"blocks.{index}.", f"model.layers.{index}."
            ours |= {block + name: _take(found, layer + theirs) for name, theirs in NORMS.items()}
            for name, parts in LINEARS.items():
                pieces = [_take(found, f"{layer}{part}.weight") for part in parts]
                ours[f"{block}{name}.weight"] = torch.cat(pieces)
                if settings.bias:
                    biases = [
                        found.pop(f"{layer}{part}.bias", piece.new_zeros(len(piece)))
                        for part, piece in zip(parts, pieces, strict=True)
                    ]
                    ours[f"{block}{name}.bias"] = torch.cat(biases)
        return ours | found


class MinistralAdapter(LlamaAdapter):
    """Adapter to Ministral: Llama without biases, with a sliding window."""

    model_type = "ministral"
    hf_class = MINISTRAL

    def misfits(self, settings: ModelSettings, scaling: PositionScaling) -> list[str]:
        """List the settings that the class would need; empty when it can express them."""
        return ministral_misfits(settings, scaling)

    def to_configuration(self, settings: ModelSettings, scaling: PositionScaling) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        return super().to_configuration(settings, scaling) | layer_types(settings)

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelSettings:
        """Return our settings. Raises UserError for what we do not compute."""
        window = window_of(configuration)
        values = super().from_configuration(configuration).model_dump(exclude_none=True)
        return ModelSettings.model_validate(values | {"sliding_window": window})


def _kinds(settings: ModelSettings) -> tuple[str, ...]:
    return ("weight", "bias") if settings.bias else ("weight",)


def _rows(name: str, settings: ModelSettings) -> list[int]:
    key_rows = settings.kv_heads * settings.head_width
    return {
        "attention.query_key_value": [settings.n_heads * settings.head_width, key_rows, key_rows],
        "attention.output": [settings.d_model],
        "feed_forward.input": [settings.d_ff, settings.d_ff],
        "feed_forward.output": [settings.d_model],
    }[name]


def _take(found: dict[str, Tensor], name: str) -> Tensor:
    if name not in found:
        raise UserError(f"the folder's weights lack {name}")
    return found.pop(name)
