"""Mistral (2310.06825) and Ministral: Llama without biases, with sliding windows."""

from collections.abc import Mapping
from typing import Any

from feldspar.huggingface.layer_types import layer_types, window_of
from feldspar.huggingface.llama_like import LlamaLikeAdapter
from feldspar.recipe.sections.model import ModelSettings


class MistralAdapter(LlamaLikeAdapter):
    """Adapter to Mistral, whose layers all have a window, or none has."""

    model_type = "mistral"
    hf_class = "MistralForCausalLM"
    defaults = {"num_key_value_heads": 8, "sliding_window": 4096}

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ModelSettings. Raises UserError for what we do not compute."""
        everywhere = {key: value for key, value in values.items() if key != "layer_types"}
        return super().arguments(values) | {"sliding_window": window_of(everywhere)}

    def keys(self, settings: ModelSettings) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape, without positions."""
        window = settings.sliding_window
        return super().keys(settings) | {
            "head_dim": settings.head_width,
            "sliding_window": None if window is None else window.tokens,
        }


class MinistralAdapter(MistralAdapter):
    """Adapter to Ministral, where some layers may have a window."""

    model_type = "ministral"
    hf_class = "MinistralForCausalLM"

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ModelSettings. Raises UserError for what we do not compute."""
        return super().arguments(values) | {"sliding_window": window_of(values)}

    def keys(self, settings: ModelSettings) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape, without positions."""
        return super().keys(settings) | layer_types(settings)
