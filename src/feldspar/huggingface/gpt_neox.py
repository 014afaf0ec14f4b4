"""GPT-NeoX and Pythia (`GPTNeoXForCausalLM`): parallel branches, rotary positions, biases."""

from collections.abc import Iterator, Mapping
from typing import Any

from feldspar.huggingface.activations import PLAIN, activation_name, feed_forward_of
from feldspar.huggingface.adapter import Adapter, ModelDescription
from feldspar.huggingface.rope_parameters import rope_parameters, rope_scaling
from feldspar.huggingface.tensor_rules import (
    TensorRule,
    in_each_block,
    linear,
    query_key_value_groups,
)
from feldspar.recipe.sections.block_parts import Biases
from feldspar.recipe.sections.model import ModelSettings, NormSettings, RotaryPositions

FRACTION, BASE = "partial_rotary_factor", "rope_theta"


class GptNeoxAdapter(Adapter):
    """Adapter to GPT-NeoX; the fused matrix holds query, key and value of one head after
    another."""

    model_type = "gpt_neox"
    hf_class = "GPTNeoXForCausalLM"
    prefix = "gpt_neox."
    ignored = (
        r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
        r"(embed_out|lm_head)\.weight",
    )

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        settings = description.settings
        positions = settings.positions
        rotary = positions if isinstance(positions, RotaryPositions) else RotaryPositions()
        return {
            "model_type": self.model_type,
            "architectures": [self.hf_class],
            "vocab_size": settings.vocab_size,
            "max_position_embeddings": settings.max_sequence_length,
            "hidden_size": settings.d_model,
            "num_hidden_layers": settings.n_layers,
            "num_attention_heads": settings.n_heads,
            "intermediate_size": settings.d_ff,
            "hidden_act": activation_name(settings.feed_forward, PLAIN),
            "layer_norm_eps": settings.norm.epsilon,
            "use_parallel_residual": settings.branches == "parallel",
            # The older and the newer places of the same numbers.
            "rotary_pct": rotary.fraction,
            "rotary_emb_base": rotary.base,
            "rope_parameters": {
                **rope_parameters(description.scaling, rotary.base),
                FRACTION: rotary.fraction,
            },
            "attention_bias": settings.biases.query_key_value,
            "attention_dropout": settings.dropout,
            "hidden_dropout": settings.dropout,
            "tie_word_embeddings": settings.tied_embeddings,
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        rope = configuration.get("rope_parameters") or configuration.get("rope_scaling") or {}
        scaling = rope_scaling({**configuration, "rope_parameters": {**rope, FRACTION: None}})
        width = configuration["hidden_size"] // configuration["num_attention_heads"]
        fraction = rope.get(FRACTION, configuration.get("rotary_pct", 0.25))
        base = rope.get(BASE, configuration.get("rotary_emb_base", 10000.0))
        in_attention = configuration.get("attention_bias", True)
        settings = ModelSettings(
            n_layers=configuration["num_hidden_layers"],
            d_model=configuration["hidden_size"],
            n_heads=configuration["num_attention_heads"],
            d_ff=configuration["intermediate_size"],
            vocab_size=configuration["vocab_size"],
            max_sequence_length=configuration["max_position_embeddings"],
            positions=RotaryPositions(fraction=int(width * fraction) / width, base=float(base)),
            feed_forward=feed_forward_of(configuration, "hidden_act", PLAIN, "gelu"),
            norm=NormSettings(epsilon=configuration.get("layer_norm_eps", 1e-5)),
            branches="parallel"
            if configuration.get("use_parallel_residual", True)
            else "sequential",
            bias=Biases(
                norm=True,
                query_key_value=in_attention,
                attention_output=in_attention,
                feed_forward=True,
            ),
            tied_embeddings=configuration.get("tie_word_embeddings", False),
        )
        return ModelDescription(settings, scaling=scaling)

    def tensor_rules(self, settings: ModelSettings) -> tuple[TensorRule, ...]:
        """Return a rule for each tensor."""
        return tuple(_rules(settings))


def _rules(settings: ModelSettings) -> Iterator[TensorRule]:
    yield from linear("token_embedding", "gpt_neox.embed_in", False)
    bias, fused = settings.biases.query_key_value, query_key_value_groups(settings)
    block = [
        *linear("attention_norm", "input_layernorm", True),
        *linear("attention.query_key_value", "attention.query_key_value", bias, fused),
        *linear("attention.output", "attention.dense", bias),
        *linear("feed_forward_norm", "post_attention_layernorm", True),
        *linear("feed_forward.input", "mlp.dense_h_to_4h", True),
        *linear("feed_forward.output", "mlp.dense_4h_to_h", True),
    ]
    yield from in_each_block(block, settings, "gpt_neox.layers.{}.")
    yield from linear("final_norm", "gpt_neox.final_layer_norm", True)
    if not settings.tied_embeddings:
        yield from linear("output", "embed_out", False)
