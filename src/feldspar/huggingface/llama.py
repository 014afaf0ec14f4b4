"""Llama 2, 3 and 3.x (`LlamaForCausalLM`)."""

from collections.abc import Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.huggingface.llama_like import (
    LlamaLikeAdapter,
    attention_and_feed_forward_biases,
)
from feldspar.recipe.sections.model import ModelSettings


class LlamaAdapter(LlamaLikeAdapter):
    """Adapter to Llama."""

    model_type = "llama"
    hf_class = "LlamaForCausalLM"

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ModelSettings. Raises UserError for what we do not compute."""
        width, heads = values["hidden_size"], values["num_attention_heads"]
        if width % heads:
            raise UserError(
                "config.json: hidden_size is not a multiple of num_attention_heads, which the "
                "class requires",
                found=f"{width} and {heads}",
            )
        return super().arguments(values) | {"bias": attention_and_feed_forward_biases(values)}

    def keys(self, settings: ModelSettings) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape, without positions."""
        return super().keys(settings) | {
            "head_dim": settings.head_width,
            "attention_bias": settings.biases.attention_output,
            "mlp_bias": settings.biases.feed_forward,
        }
