"""SmolLM3 (`SmolLM3ForCausalLM`): Llama with layers that rotate nothing (NoPE)."""

from collections.abc import Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.huggingface.layer_types import FULL, WINDOW, layer_kinds, window_of
from feldspar.huggingface.llama_like import (
    LlamaLikeAdapter,
    attention_and_feed_forward_biases,
)
from feldspar.huggingface.rope_parameters import rope_base, rotary_of
from feldspar.recipe.sections.model import ModelSettings, RotaryPositions


class SmolLM3Adapter(LlamaLikeAdapter):
    """Adapter to SmolLM3; where windows are used, the layers without positions have them."""

    model_type = "smollm3"
    hf_class = "SmolLM3ForCausalLM"
    defaults = {
        "num_key_value_heads": 4,
        "rope_theta": 2e6,
        "tie_word_embeddings": True,
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
    }

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ModelSettings. Raises UserError for what we do not compute."""
        n_layers, interval = values["num_hidden_layers"], values["no_rope_layer_interval"]
        rotated = values.get("no_rope_layers")
        if rotated is None:
            rotated = [(layer + 1) % interval for layer in range(n_layers)]
        if len(rotated) < n_layers:
            raise UserError(
                "config.json: no_rope_layers needs an entry for each layer",
                found=f"{len(rotated)} entries",
                allowed=f"{n_layers} entries, 0 for a layer without positions",
            )
        without = tuple(layer for layer in range(n_layers) if not rotated[layer])
        kinds = [WINDOW if layer in without else FULL for layer in range(n_layers)]
        tokens = values.get("sliding_window") if values["use_sliding_window"] else None
        return super().arguments(values) | {
            "positions": RotaryPositions(base=rope_base(values), layers_without=without),
            "bias": attention_and_feed_forward_biases(values),
            "sliding_window": window_of({**values, "sliding_window": tokens}, kinds),
        }

    def keys(self, settings: ModelSettings) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape, without positions."""
        window, without = settings.sliding_window, rotary_of(settings).layers_without
        return super().keys(settings) | {
            "no_rope_layers": [int(layer not in without) for layer in range(settings.n_layers)],
            "use_sliding_window": window is not None,
            "sliding_window": None if window is None else window.tokens,
            "layer_types": layer_kinds(settings),
            "attention_bias": settings.biases.attention_output,
            "mlp_bias": settings.biases.feed_forward,
        }
