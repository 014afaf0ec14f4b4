"""BLOOM (`BloomForCausalLM`): ALiBi, a norm after the embedding, LayerNorm, GELU, biases."""

from collections.abc import Iterator, Mapping
from typing import Any

from feldspar.huggingface.adapter import Adapter, ModelDescription, require_values
from feldspar.huggingface.tensor_rules import (
    TensorRule,
    in_each_block,
    linear,
    query_key_value_groups,
)
from feldspar.recipe.sections.model import AlibiPositions, ModelSettings, NormSettings

DEFAULT_LENGTH = 2048
"""The context of BLOOM, for configurations that name none; ALiBi itself sets no limit."""


class BloomAdapter(Adapter):
    """Adapter to BLOOM; the fused matrix holds query, key and value of one head after another."""

    model_type = "bloom"
    hf_class = "BloomForCausalLM"
    biases_in_weight_type = True
    prefix = "transformer."
    ignored = (r"lm_head\.weight",)

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape."""
        settings = description.settings
        return {
            "model_type": self.model_type,
            "architectures": [self.hf_class],
            "vocab_size": settings.vocab_size,
            "seq_length": settings.max_sequence_length,
            "hidden_size": settings.d_model,
            "n_layer": settings.n_layers,
            "n_head": settings.n_heads,
            "layer_norm_epsilon": settings.norm.epsilon,
            "hidden_dropout": settings.dropout,
            "attention_dropout": settings.dropout,
            "tie_word_embeddings": settings.tied_embeddings,
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        older = {"n_embed": "hidden_size", "num_attention_heads": "n_head"}
        names = {older.get(name, name): value for name, value in configuration.items()}
        d_model = names["hidden_size"]
        allowed = {
            "apply_residual_connection_post_layernorm": (False,),
            "n_inner": (None, 4 * d_model),
        }
        require_values(names, allowed)
        settings = ModelSettings(
            n_layers=names["n_layer"] if "n_layer" in names else names["num_hidden_layers"],
            d_model=d_model,
            n_heads=names["n_head"],
            d_ff=4 * d_model,
            vocab_size=names["vocab_size"],
            max_sequence_length=names.get("seq_length") or DEFAULT_LENGTH,
            positions=AlibiPositions(),
            norm=NormSettings(epsilon=names.get("layer_norm_epsilon", 1e-5)),
            embedding_norm=True,
            tied_embeddings=names.get("tie_word_embeddings", True),
        )
        return ModelDescription(settings)

    def tensor_rules(self, settings: ModelSettings) -> tuple[TensorRule, ...]:
        """Return a rule for each tensor."""
        return tuple(_rules(settings))


def _rules(settings: ModelSettings) -> Iterator[TensorRule]:
    yield from linear("token_embedding", "transformer.word_embeddings", False)
    yield from linear("embedding_norm", "transformer.word_embeddings_layernorm", True)
    fused = query_key_value_groups(settings)
    block = [
        *linear("attention_norm", "input_layernorm", True),
        *linear("attention.query_key_value", "self_attention.query_key_value", True, fused),
        *linear("attention.output", "self_attention.dense", True),
        *linear("feed_forward_norm", "post_attention_layernorm", True),
        *linear("feed_forward.input", "mlp.dense_h_to_4h", True),
        *linear("feed_forward.output", "mlp.dense_4h_to_h", True),
    ]
    yield from in_each_block(block, settings, "transformer.h.{}.")
    yield from linear("final_norm", "transformer.ln_f", True)
    if not settings.tied_embeddings:
        yield from linear("output", "lm_head", False)
