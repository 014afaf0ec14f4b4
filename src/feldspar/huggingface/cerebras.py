"""Cerebras-GPT, BTLM, Jais and CrystalCoder: GPT-2's names with the multipliers of muP.

The classes of the last three live in remote code, which is never run. The formulas are those of
2309.11568 and 2310.13017: the embeddings times ``mup_embeddings_scale``, attention scores divided
by head_dim where ``mup_scale_qk_dot_by_d`` (else by its root), the logits times
``mup_output_alpha * mup_width_scale``. A first release of Jais has other keys, of which
``width_scale`` is the whole factor of the logits. SwiGLU is
``c_proj(c_fc(x) * silu(c_fc2(x)))``: the gate is c_fc2.
"""

import math
from collections.abc import Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.huggingface.activations import PLAIN, Activations, activation_name, feed_forward_of
from feldspar.huggingface.adapter import (
    LEARNING_RATE,
    STANDARD,
    Adapter,
    ModelDescription,
    require_values,
)
from feldspar.huggingface.declared import (
    ATTENTION,
    EMBEDDING,
    NAMES,
    OUTPUT,
    WIDTH,
    mup,
    positive_number,
    true_or_false,
)
from feldspar.huggingface.gpt2 import Gpt2Adapter, gpt2_rules
from feldspar.huggingface.tensor_rules import TensorRule
from feldspar.recipe.sections.block_parts import NormSettings
from feldspar.recipe.sections.model import (
    AlibiPositions,
    LearnedPositions,
    ModelSettings,
    Positions,
    RotaryPositions,
)
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.recipe.sections.position_scaling import LinearScaling, NoScaling, PositionScaling

OLDER_EMBEDDING, OLDER_OUTPUT = "embeddings_scale", "width_scale"
OLDER_ATTENTION = "scale_qk_dot_by_d"
OLDER_NAMES = (OLDER_EMBEDDING, OLDER_OUTPUT, OLDER_ATTENTION)
ACTIVATIONS: Activations = {"swiglu": "swiglu", **PLAIN}


class CerebrasAdapter(Adapter):
    """The parts that the adapters of the three classes share."""

    prefix = "transformer."
    ignored = (
        r"h\.\d+\.attn\.(bias|masked_bias)",
        r"relative_pe\.slopes",
        r"lm_head\.weight",
    )
    always_ties = True
    position_type = "alibi"
    """The positions that ``position_embedding_type`` names where the key is absent."""
    has_older_keys = False
    """True if the class also reads the keys of the first release of Jais."""

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        require_values(
            configuration,
            {
                "scale_attn_weights": (True,),
                "scale_attn_by_inverse_layer_idx": (False,),
                "add_cross_attention": (False,),
                "position_embedding_type": ("learned", "alibi", "rotary"),
            },
        )
        d_model, n_heads = configuration["n_embd"], configuration["n_head"]
        activation = feed_forward_of(configuration, "activation_function", ACTIVATIONS, "gelu_new")
        settings = ModelSettings(
            n_layers=configuration["n_layer"],
            d_model=d_model,
            n_heads=n_heads,
            d_ff=configuration.get("n_inner") or 4 * d_model,
            vocab_size=configuration["vocab_size"],
            max_sequence_length=configuration["n_positions"],
            positions=self._positions(configuration, d_model // n_heads),
            feed_forward=activation,
            norm=NormSettings(epsilon=configuration.get("layer_norm_epsilon", 1e-5)),
            bias=True,
            tied_embeddings=configuration.get("tie_word_embeddings", True),
        )
        parametrization = _parametrization(configuration, settings, self.has_older_keys)
        return ModelDescription(settings, parametrization, _scaling(configuration))

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on shape, multipliers and scaling of positions."""
        settings = description.settings
        positions = settings.positions
        rotary = isinstance(positions, RotaryPositions)
        return {
            "model_type": self.model_type,
            "architectures": [self.hf_class],
            "vocab_size": settings.vocab_size,
            "n_positions": settings.max_sequence_length,
            "n_embd": settings.d_model,
            "n_layer": settings.n_layers,
            "n_head": settings.n_heads,
            "n_inner": settings.d_ff,
            "activation_function": activation_name(settings.feed_forward, ACTIVATIONS),
            "layer_norm_epsilon": settings.norm.epsilon,
            "resid_pdrop": settings.dropout,
            "embd_pdrop": settings.dropout,
            "attn_pdrop": settings.dropout,
            "tie_word_embeddings": settings.tied_embeddings,
            "position_embedding_type": positions.type,
            **({"rotary_dim": round(positions.fraction * settings.head_width)} if rotary else {}),
            **multiplier_keys(description, self.has_older_keys),
            **_alibi_scaling(description.scaling),
        }

    def tensor_rules(self, settings: ModelSettings) -> tuple[TensorRule, ...]:
        """Return a rule for each tensor."""
        return tuple(gpt2_rules(settings))

    def kept_parametrization(self, description: ModelDescription) -> ParametrizationSettings:
        """Return the parametrization with the multipliers that the keys can say."""
        return expressible(description)

    def _positions(self, configuration: Mapping[str, Any], head_width: int) -> Positions:
        kind = configuration.get("position_embedding_type", self.position_type)
        if kind == "learned":
            return LearnedPositions()
        if kind == "alibi":
            return AlibiPositions()
        rotated = configuration.get("rotary_dim") or head_width
        return RotaryPositions(fraction=rotated / head_width, interleaved=True)


class BtlmAdapter(CerebrasAdapter):
    """Adapter to BTLM-3B-8K."""

    model_type = "btlm"
    hf_class = "BTLMLMHeadModel"


class JaisAdapter(CerebrasAdapter):
    """Adapter to Jais, with its newer and its older keys."""

    model_type = "jais"
    hf_class = "JAISLMHeadModel"
    has_older_keys = True


class CrystalCoderAdapter(CerebrasAdapter):
    """Adapter to CrystalCoder: rotary positions of neighbouring pairs."""

    model_type = "crystalcoder"
    hf_class = "CrystalCoderLMHeadModel"
    position_type = "rotary"


class CerebrasGptAdapter(Gpt2Adapter):
    """Adapter to Cerebras-GPT with muP: GPT-2 whose configuration declares multipliers.

    Transformers' own GPT-2 ignores these keys and would compute other logits, so that an export as
    ``gpt2`` folds the multipliers into the weights; this adapter keeps weights and keys.
    """

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on shape and multipliers."""
        return super().to_configuration(description) | multiplier_keys(description, False)

    def kept_parametrization(self, description: ModelDescription) -> ParametrizationSettings:
        """Return the parametrization with the multipliers that the keys can say."""
        return expressible(description)


def expressible(description: ModelDescription) -> ParametrizationSettings:
    """Return a parametrization with the multipliers of embeddings and logits.

    Scores are divided by head_dim, or by its root. All other multipliers are to be folded.
    """
    given = description.parametrization
    if given.type not in ("sp", "mup"):
        return STANDARD
    width = description.settings.head_width
    by_root = math.sqrt(width) if given.type == "mup" else 1.0
    by_width = 1.0 if given.type == "mup" else 1 / math.sqrt(width)
    wanted = given.attention_multiplier
    nearest = next((v for v in (by_width, by_root) if math.isclose(v, wanted)), by_root)
    return (
        given if nearest == wanted else given.model_copy(update={"attention_multiplier": nearest})
    )


def multiplier_keys(description: ModelDescription, has_older_keys: bool) -> dict[str, Any]:
    """Return the keys of the multipliers of an ``expressible`` parametrization.

    Multipliers under ``sp`` have no base width. Jais says them in its older keys.
    """
    given, forward = description.parametrization, description.forward
    by_width = math.isclose(forward.attention, 1 / description.settings.head_width)
    if given.type == "mup" and given.base_d_model is not None:
        width = given.base_d_model / description.settings.d_model
        return _newer(given.embedding_multiplier, given.output_multiplier, width, by_width)
    if has_older_keys and given != STANDARD:
        return {
            OLDER_EMBEDDING: forward.embedding,
            OLDER_OUTPUT: forward.output,
            OLDER_ATTENTION: by_width,
        }
    return _newer(forward.embedding, forward.output, 1.0, by_width)


def _newer(embedding: float, output: float, width: float, by_width: bool) -> dict[str, Any]:
    return {EMBEDDING: embedding, OUTPUT: output, WIDTH: width, ATTENTION: by_width}


def _parametrization(
    configuration: Mapping[str, Any], settings: ModelSettings, has_older_keys: bool
) -> ParametrizationSettings:
    """Return the parametrization.

    Raises UserError for a configuration that lacks a multiplier: the classes take a neutral value
    for it, and models of these classes have others.
    """
    older = has_older_keys and any(name in configuration for name in OLDER_NAMES)
    names = OLDER_NAMES if older else NAMES
    missing = [name for name in names if configuration.get(name) is None]
    if missing:
        raise UserError(
            f"config.json: {', '.join(missing)} missing: the model's multipliers are unknown",
            do="get the configuration that the weights were released with; a model without "
            "multipliers has 1, and false for the division by head_dim",
        )
    values = configuration
    if older:
        by_width = true_or_false(values, OLDER_ATTENTION)
        return ParametrizationSettings(
            learning_rate=LEARNING_RATE,
            embedding_multiplier=positive_number(values, OLDER_EMBEDDING),
            output_multiplier=positive_number(values, OLDER_OUTPUT),
            attention_multiplier=1 / math.sqrt(settings.head_width) if by_width else 1.0,
        )
    embedding, by_width = positive_number(values, EMBEDDING), true_or_false(values, ATTENTION)
    output, width = positive_number(values, OUTPUT), positive_number(values, WIDTH)
    if (embedding, output, width, by_width) == (1.0, 1.0, 1.0, False):
        return STANDARD
    return mup(settings, embedding, output, width, by_width)


def _scaling(configuration: Mapping[str, Any]) -> PositionScaling:
    found = configuration.get("alibi_scaling")
    if found is None:
        return NoScaling()
    require_values(found, {"type": ("linear",)})
    if (found.get("factor") is None) == (found.get("train_seq_len") is None):
        raise UserError(
            "alibi_scaling: either factor or train_seq_len is needed, not both", found=found
        )
    if found.get("factor") is not None:
        return LinearScaling(type="linear", factor=positive_number(found, "factor"))
    return LinearScaling(type="linear", train_length=found["train_seq_len"])


def _alibi_scaling(scaling: PositionScaling) -> dict[str, Any]:
    """Return the key of the scaling; one that the class lacks is left out."""
    if not isinstance(scaling, LinearScaling) or scaling.scope == "query":
        return {}
    if scaling.factor is not None:
        return {"alibi_scaling": {"type": "linear", "factor": scaling.factor}}
    return {"alibi_scaling": {"type": "linear", "train_seq_len": scaling.train_length}}
