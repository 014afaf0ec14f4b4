"""The keys and tensors that Llama shares with the many classes made after it."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from feldspar.huggingface.activations import GATED, activation_name, feed_forward_of
from feldspar.huggingface.adapter import Adapter, ModelDescription
from feldspar.huggingface.declared import declared_parametrization
from feldspar.huggingface.rope_parameters import (
    rope_base,
    rope_parameters,
    rope_scaling,
    rotary_of,
)
from feldspar.huggingface.tensor_rules import (
    Layout,
    Same,
    TensorRule,
    gate_and_up_rows,
    in_each_block,
    linear,
    query_key_value_rows,
)
from feldspar.recipe.sections.block_parts import Biases, NormSettings
from feldspar.recipe.sections.model import ModelSettings, RotaryPositions

SEPARATE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATE_AND_UP = ("mlp.gate_proj", "mlp.up_proj")
NORMS_BEFORE = {
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
}
NORMS_OF_HEADS = {
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
}


class LlamaLikeAdapter(Adapter):
    """Base of adapters to classes with Llama's keys: rotary halves, RMSNorm, a gated layer.

    A class that differs overrides ``arguments`` and ``keys``, which are inverses of each other, and
    the names of its modules. A module that is a tuple is several maps that we store as one.
    """

    prefix = "model."
    ignored = (r".*\.rotary_emb\.inv_freq", r"lm_head\.weight")
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Values of keys that a ``config.json`` may lack, where they differ from Llama's."""
    norms: ClassVar[Mapping[str, str]] = NORMS_BEFORE
    """The class's names of norms, by ours."""
    query_key_value: ClassVar[str | tuple[str, ...]] = SEPARATE
    feed_forward: ClassVar[tuple[str | tuple[str, ...], str]] = (GATE_AND_UP, "mlp.down_proj")

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ModelSettings. Raises UserError for what we do not compute."""
        return {
            "n_layers": values["num_hidden_layers"],
            "d_model": values["hidden_size"],
            "n_heads": values["num_attention_heads"],
            "n_kv_heads": values.get("num_key_value_heads"),
            "head_dim": values.get("head_dim"),
            "d_ff": values["intermediate_size"],
            "vocab_size": values["vocab_size"],
            "max_sequence_length": values["max_position_embeddings"],
            "positions": RotaryPositions(base=rope_base(values)),
            "feed_forward": feed_forward_of(values, "hidden_act", GATED, "silu"),
            "norm": NormSettings(type="rms", epsilon=values.get("rms_norm_eps", 1e-6)),
            "bias": False,
            "tied_embeddings": values.get("tie_word_embeddings", False),
        }

    def keys(self, settings: ModelSettings) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape, without positions."""
        own_width = settings.head_width * settings.n_heads != settings.d_model
        return {
            "vocab_size": settings.vocab_size,
            "max_position_embeddings": settings.max_sequence_length,
            "hidden_size": settings.d_model,
            "num_hidden_layers": settings.n_layers,
            "num_attention_heads": settings.n_heads,
            "num_key_value_heads": settings.kv_heads,
            "intermediate_size": settings.d_ff,
            "hidden_act": activation_name(settings.feed_forward, GATED),
            "rms_norm_eps": settings.norm.epsilon,
            "tie_word_embeddings": settings.tied_embeddings,
        } | ({"head_dim": settings.head_width} if own_width else {})

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        base = rotary_of(description.settings).base
        parameters = rope_parameters(description.scaling, base)
        older = {"rope_scaling": parameters} if parameters["rope_type"] != "default" else {}
        return {
            "model_type": self.model_type,
            "architectures": [self.hf_class],
            **self.keys(description.settings),
            # The older and the newer places of the same numbers.
            "rope_theta": base,
            "rope_parameters": parameters,
            **older,
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        values = {**self.defaults, **configuration}
        settings = ModelSettings(**self.arguments(values))
        parametrization = declared_parametrization(configuration, settings)
        return ModelDescription(settings, parametrization, rope_scaling(values))

    def tensor_rules(self, settings: ModelSettings) -> tuple[TensorRule, ...]:
        """Return a rule for each tensor."""
        return tuple(self._rules(settings))

    def _rules(self, settings: ModelSettings) -> Iterator[TensorRule]:
        biases = settings.biases
        norm_bias = biases.norm and settings.norm.type == "layer"
        yield from linear("token_embedding", "model.embed_tokens", False)
        yield from linear("final_norm", "model.norm", norm_bias)
        if not settings.tied_embeddings:
            yield from linear("output", "lm_head", False)
        fused, (gated, back) = self.query_key_value, self.feed_forward
        queries = _rows(fused, query_key_value_rows(settings))
        gate = _rows(gated, gate_and_up_rows(settings))
        block = [
            *linear("attention.query_key_value", fused, biases.query_key_value, queries),
            *linear("attention.output", "self_attn.o_proj", biases.attention_output),
            *linear("feed_forward.input", gated, biases.feed_forward, gate),
            *linear("feed_forward.output", back, biases.feed_forward),
        ]
        for ours, theirs in self.norms.items():
            block += linear(ours, theirs, norm_bias)
        yield from in_each_block(block, settings, "model.layers.{}.")


def attention_and_feed_forward_biases(values: Mapping[str, Any]) -> bool | Biases:
    """Return the setting ``bias`` of a ``config.json`` with attention_bias and mlp_bias.

    One truth value says the same as several that are alike.
    """
    attention, feed_forward = values.get("attention_bias", False), values.get("mlp_bias", False)
    if attention == feed_forward:
        return attention
    return Biases(query_key_value=attention, attention_output=attention, feed_forward=feed_forward)


def _rows(modules: str | tuple[str, ...], rows: Layout) -> Layout:
    """Return the layout of one module as it is, and of several by their rows."""
    return Same() if isinstance(modules, str) else rows
