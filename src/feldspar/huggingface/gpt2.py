"""GPT-2 (`GPT2LMHeadModel`): learned positions, LayerNorm, GELU or ReLU, biases."""

from collections.abc import Iterator, Mapping
from typing import Any

from feldspar.huggingface.activations import PLAIN, activation_name, feed_forward_of
from feldspar.huggingface.adapter import Adapter, ModelDescription, require_values
from feldspar.huggingface.declared import declared_parametrization
from feldspar.huggingface.tensor_rules import (
    TensorRule,
    Transposed,
    gate_and_up_rows,
    in_each_block,
    linear,
)
from feldspar.recipe.sections.block_parts import NormSettings
from feldspar.recipe.sections.model import LearnedPositions, ModelSettings


class Gpt2Adapter(Adapter):
    """Adapter to GPT-2's names and layouts; its linear maps store (in, out)."""

    model_type = "gpt2"
    hf_class = "GPT2LMHeadModel"
    prefix = "transformer."
    ignored = (r"h\.\d+\.attn\.(bias|masked_bias)", r"lm_head\.weight")

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape."""
        settings = description.settings
        return {
            "model_type": self.model_type,
            "architectures": [self.hf_class],
            "vocab_size": settings.vocab_size,
            "n_positions": settings.max_sequence_length,
            "n_embd": settings.d_model,
            "n_layer": settings.n_layers,
            "n_head": settings.n_heads,
            "n_inner": settings.d_ff,
            "activation_function": activation_name(settings.feed_forward, PLAIN),
            "layer_norm_epsilon": settings.norm.epsilon,
            "resid_pdrop": settings.dropout,
            "embd_pdrop": settings.dropout,
            "attn_pdrop": settings.dropout,
            "tie_word_embeddings": settings.tied_embeddings,
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        require_values(
            configuration,
            {
                "scale_attn_weights": (True,),
                "scale_attn_by_inverse_layer_idx": (False,),
                "add_cross_attention": (False,),
            },
        )
        d_model = configuration["n_embd"]
        settings = ModelSettings(
            n_layers=configuration["n_layer"],
            d_model=d_model,
            n_heads=configuration["n_head"],
            d_ff=configuration.get("n_inner") or 4 * d_model,
            vocab_size=configuration["vocab_size"],
            max_sequence_length=configuration["n_positions"],
            feed_forward=feed_forward_of(configuration, "activation_function", PLAIN, "gelu_new"),
            norm=NormSettings(epsilon=configuration.get("layer_norm_epsilon", 1e-5)),
            tied_embeddings=configuration.get("tie_word_embeddings", True),
        )
        return ModelDescription(settings, declared_parametrization(configuration, settings))

    def tensor_rules(self, settings: ModelSettings) -> tuple[TensorRule, ...]:
        """Return a rule for each tensor."""
        return tuple(gpt2_rules(settings))


def gpt2_rules(settings: ModelSettings) -> Iterator[TensorRule]:
    """Yield a rule for each tensor of GPT-2, and of classes that add a gate or drop positions.

    The gate of such a class is c_fc2.
    """
    yield TensorRule("token_embedding.weight", ("transformer.wte.weight",))
    if isinstance(settings.positions, LearnedPositions):
        yield TensorRule("position_embedding.weight", ("transformer.wpe.weight",))
    inner: tuple[str, ...] = ("mlp.c_fc2", "mlp.c_fc") if settings.gated else ("mlp.c_fc",)
    layout = Transposed(gate_and_up_rows(settings)) if settings.gated else Transposed()
    block = [
        *linear("attention_norm", "ln_1", True),
        *linear("attention.query_key_value", "attn.c_attn", True, Transposed()),
        *linear("attention.output", "attn.c_proj", True, Transposed()),
        *linear("feed_forward_norm", "ln_2", True),
        *linear("feed_forward.input", inner, True, layout),
        *linear("feed_forward.output", "mlp.c_proj", True, Transposed()),
    ]
    yield from in_each_block(block, settings, "transformer.h.{}.")
    yield from linear("final_norm", "transformer.ln_f", True)
    if not settings.tied_embeddings:
        yield TensorRule("output.weight", ("lm_head.weight",))
