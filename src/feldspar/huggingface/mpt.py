"""MPT (`MptForCausalLM`): ALiBi, LayerNorm, GELU in its exact form, no biases."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import LEARNING_RATE, Adapter, ModelDescription, require_values
from feldspar.huggingface.tensor_rules import TensorRule, in_each_block, linear
from feldspar.recipe.sections.model import AlibiPositions, ModelSettings, NormSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings

ALLOWED = {
    "expansion_ratio": (4,),
    "no_bias": (True,),
    "logit_scale": (None, 1.0),
    "embedding_fraction": (1.0,),
    "norm_type": ("low_precision_layernorm", "layernorm"),
}
ALLOWED_IN_ATTENTION = {
    "attn_type": ("multihead_attention",),
    "clip_qkv": (None, 0),
    "prefix_lm": (False,),
    "qk_ln": (False,),
    "attn_uses_sequence_id": (False,),
    "alibi": (True,),
}


class MptAdapter(Adapter):
    """Adapter to MPT; the fused matrix holds queries, keys and values as ours does.

    The class builds its biases for ``max_seq_len`` tokens and takes no more, so that number is the
    longest context of an exported model. It ignores ``alibi_bias_max``, which the authors' own code
    follows and import too; a model with another value than 8 is not exported to the class.
    """

    model_type = "mpt"
    hf_class = "MptForCausalLM"
    prefix = "transformer."
    ignored = (r"lm_head\.weight",)

    def kept_parametrization(self, description: ModelDescription) -> ParametrizationSettings:
        """Return the parametrization with the multiplier of attention scores (softmax_scale)."""
        scale = description.forward.attention
        return _scaled_scores(scale, description.settings)

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape."""
        settings, scale = description.settings, description.forward.attention
        plain = math.isclose(scale, settings.head_width**-0.5, rel_tol=1e-12)
        return {
            "model_type": self.model_type,
            "architectures": [self.hf_class],
            "vocab_size": settings.vocab_size,
            "max_seq_len": settings.max_sequence_length,
            "d_model": settings.d_model,
            "n_layers": settings.n_layers,
            "n_heads": settings.n_heads,
            "expansion_ratio": 4,
            "layer_norm_epsilon": settings.norm.epsilon,
            "no_bias": True,
            "learned_pos_emb": False,
            "attn_config": {
                "alibi": True,
                "softmax_scale": None if plain else scale,
            },
            "tie_word_embeddings": settings.tied_embeddings,
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        attention = configuration.get("attn_config") or {}
        require_values(configuration, ALLOWED)
        require_values(attention, ALLOWED_IN_ATTENTION)
        d_model = configuration["d_model"]
        settings = ModelSettings(
            n_layers=configuration["n_layers"],
            d_model=d_model,
            n_heads=configuration["n_heads"],
            d_ff=4 * d_model,
            vocab_size=configuration["vocab_size"],
            max_sequence_length=configuration["max_seq_len"],
            positions=AlibiPositions(max_exponent=attention.get("alibi_bias_max", 8)),
            feed_forward="gelu_erf",
            norm=NormSettings(epsilon=configuration.get("layer_norm_epsilon", 1e-5)),
            bias=False,
            tied_embeddings=configuration.get("tie_word_embeddings", True),
        )
        scale = attention.get("softmax_scale")
        if scale is None:
            return ModelDescription(settings)
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < 1e3:
            raise UserError("config.json: softmax_scale is not a number above 0", found=scale)
        return ModelDescription(settings, _scaled_scores(scale, settings))

    def tensor_rules(self, settings: ModelSettings) -> tuple[TensorRule, ...]:
        """Return a rule for each tensor."""
        return tuple(_rules(settings))


def _scaled_scores(scale: float, settings: ModelSettings) -> ParametrizationSettings:
    """Return the standard parametrization whose attention scores are ``scale`` times q.k."""
    multiplier = scale * math.sqrt(settings.head_width)
    return ParametrizationSettings(learning_rate=LEARNING_RATE, attention_multiplier=multiplier)


def _rules(settings: ModelSettings) -> Iterator[TensorRule]:
    yield from linear("token_embedding", "transformer.wte", False)
    block = [
        *linear("attention_norm", "norm_1", False),
        *linear("attention.query_key_value", "attn.Wqkv", False),
        *linear("attention.output", "attn.out_proj", False),
        *linear("feed_forward_norm", "norm_2", False),
        *linear("feed_forward.input", "ffn.up_proj", False),
        *linear("feed_forward.output", "ffn.down_proj", False),
    ]
    yield from in_each_block(block, settings, "transformer.blocks.{}.")
    yield from linear("final_norm", "transformer.norm_f", False)
    if not settings.tied_embeddings:
        yield from linear("output", "lm_head", False)
