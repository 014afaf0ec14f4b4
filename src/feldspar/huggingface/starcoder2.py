"""StarCoder 2 (2402.19173): LayerNorm, biases, GELU's tanh form, a window in all layers or none."""

from collections.abc import Mapping
from typing import Any

from feldspar.huggingface.activations import PLAIN, activation_name, feed_forward_of
from feldspar.huggingface.layer_types import window_of
from feldspar.huggingface.llama_like import LlamaLikeAdapter
from feldspar.recipe.sections.block_parts import Biases, NormSettings
from feldspar.recipe.sections.model import ModelSettings

EPSILON = "norm_epsilon"


class StarCoder2Adapter(LlamaLikeAdapter):
    """Adapter to StarCoder 2."""

    model_type = "starcoder2"
    hf_class = "Starcoder2ForCausalLM"
    defaults = {
        "num_key_value_heads": 2,
        "hidden_act": "gelu_pytorch_tanh",
        EPSILON: 1e-5,
        "use_bias": True,
        "tie_word_embeddings": True,
    }
    feed_forward = ("mlp.c_fc", "mlp.c_proj")

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ModelSettings. Raises UserError for what we do not compute."""
        kind = feed_forward_of(values, "hidden_act", PLAIN, "gelu_pytorch_tanh")
        bias = values["use_bias"]
        parts = dict.fromkeys(("query_key_value", "attention_output", "feed_forward"), bias)
        return super().arguments({**values, "hidden_act": "silu"}) | {
            "feed_forward": kind,
            "norm": NormSettings(epsilon=values[EPSILON]),
            "bias": Biases(norm=True, **parts) if not bias else True,
            "sliding_window": window_of({**values, "layer_types": None}),
        }

    def keys(self, settings: ModelSettings) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape, without positions."""
        window = settings.sliding_window
        found = super().keys(settings)
        del found["rms_norm_eps"]
        return found | {
            "hidden_act": activation_name(settings.feed_forward, PLAIN),
            EPSILON: settings.norm.epsilon,
            "use_bias": settings.biases.feed_forward,
            "sliding_window": None if window is None else window.tokens,
        }
