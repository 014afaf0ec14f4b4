"""Qwen 2 and 2.5 (2407.10671), with biases of q, k and v; Qwen 3 (2505.09388), with their norms."""

from collections.abc import Mapping
from typing import Any

from feldspar.huggingface.layer_types import FULL, WINDOW, layer_kinds, window_of
from feldspar.huggingface.llama_like import NORMS_BEFORE, NORMS_OF_HEADS, LlamaLikeAdapter
from feldspar.recipe.sections.block_parts import Biases
from feldspar.recipe.sections.model import ModelSettings


class Qwen2Adapter(LlamaLikeAdapter):
    """Adapter to Qwen 2 and 2.5."""

    model_type = "qwen2"
    hf_class = "Qwen2ForCausalLM"
    defaults = {
        "num_key_value_heads": 32,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    }

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ModelSettings. Raises UserError for what we do not compute."""
        tokens = values["sliding_window"] if values["use_sliding_window"] else None
        n_layers, n_full = values["num_hidden_layers"], values["max_window_layers"]
        kinds = [WINDOW if layer >= n_full else FULL for layer in range(n_layers)]
        return super().arguments(values) | {
            "bias": Biases(query_key_value=True),
            "sliding_window": window_of({**values, "sliding_window": tokens}, kinds),
        }

    def keys(self, settings: ModelSettings) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape, without positions."""
        window, kinds = settings.sliding_window, layer_kinds(settings)
        return super().keys(settings) | {
            "use_sliding_window": window is not None,
            "sliding_window": None if window is None else window.tokens,
            # Versions before layer_types count the full layers at the beginning.
            "max_window_layers": kinds.index(WINDOW) if WINDOW in kinds else len(kinds),
            "layer_types": kinds,
        }


class Qwen3Adapter(Qwen2Adapter):
    """Adapter to Qwen 3."""

    model_type = "qwen3"
    hf_class = "Qwen3ForCausalLM"
    defaults = {**Qwen2Adapter.defaults, "head_dim": 128}
    norms = NORMS_BEFORE | NORMS_OF_HEADS

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ModelSettings. Raises UserError for what we do not compute."""
        bias = values.get("attention_bias", False)
        return super().arguments(values) | {
            "bias": Biases(query_key_value=bias, attention_output=bias),
            "query_key_norm": "head",
        }

    def keys(self, settings: ModelSettings) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape, without positions."""
        return super().keys(settings) | {
            "head_dim": settings.head_width,
            "attention_bias": settings.biases.attention_output,
        }
