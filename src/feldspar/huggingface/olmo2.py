"""OLMo 2 (2501.00656): norms after each branch, and of all queries and all keys together."""

from collections.abc import Mapping
from typing import Any

from feldspar.huggingface.llama_like import NORMS_OF_HEADS, LlamaLikeAdapter
from feldspar.recipe.sections.block_parts import Biases
from feldspar.recipe.sections.model import ModelSettings


class Olmo2Adapter(LlamaLikeAdapter):
    """Adapter to OLMo 2."""

    model_type = "olmo2"
    hf_class = "Olmo2ForCausalLM"
    defaults = {"rms_norm_eps": 1e-5}
    norms = NORMS_OF_HEADS | {
        "attention_output_norm": "post_attention_layernorm",
        "feed_forward_output_norm": "post_feedforward_layernorm",
    }

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ModelSettings. Raises UserError for what we do not compute."""
        bias, found = values.get("attention_bias", False), super().arguments(values)
        return found | {
            "norm": found["norm"].model_copy(update={"place": "after"}),
            "bias": Biases(query_key_value=bias, attention_output=bias),
            "query_key_norm": "whole",
        }

    def keys(self, settings: ModelSettings) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape, without positions."""
        return super().keys(settings) | {"attention_bias": settings.biases.attention_output}
