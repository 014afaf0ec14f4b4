"""Phi-3 (2404.14219): fused matrices, and rotary positions that may be partial."""

from collections.abc import Mapping
from typing import Any

from feldspar.huggingface.adapter import ModelDescription, require_values
from feldspar.huggingface.layer_types import window_of
from feldspar.huggingface.llama_like import LlamaLikeAdapter
from feldspar.huggingface.rope_parameters import rope_base, rotary_of
from feldspar.recipe.sections.model import ModelSettings, RotaryPositions

FRACTION = "partial_rotary_factor"


class Phi3Adapter(LlamaLikeAdapter):
    """Adapter to Phi-3; the only scaling of its class is longrope, which we lack."""

    model_type = "phi3"
    hf_class = "Phi3ForCausalLM"
    defaults = {"rms_norm_eps": 1e-5}
    query_key_value = "self_attn.qkv_proj"
    feed_forward = ("mlp.gate_up_proj", "mlp.down_proj")

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        rope = configuration.get("rope_parameters") or configuration.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        require_values({"rope_type": kind}, {"rope_type": ("default",)})
        fraction = rope.get(FRACTION, configuration.get(FRACTION, 1.0))
        plain = {"rope_theta": rope_base(configuration)}
        return super().from_configuration(
            {**configuration, "rope_parameters": plain, "rope_scaling": None, FRACTION: fraction}
        )

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ModelSettings. Raises UserError for what we do not compute."""
        found = super().arguments(values)
        width = found["head_dim"] or found["d_model"] // found["n_heads"]
        fraction = int(width * values[FRACTION]) / width
        return found | {
            "positions": RotaryPositions(base=rope_base(values), fraction=fraction),
            "sliding_window": window_of({**values, "layer_types": None}),
        }

    def keys(self, settings: ModelSettings) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape, without positions."""
        window = settings.sliding_window
        return super().keys(settings) | {
            FRACTION: rotary_of(settings).fraction,
            "original_max_position_embeddings": settings.max_sequence_length,
            "sliding_window": None if window is None else window.tokens,
        }

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        configuration = super().to_configuration(description)
        parameters = configuration["rope_parameters"]
        parameters[FRACTION] = rotary_of(description.settings).fraction
        return configuration
