"""Gemma 1, 2 and 3 (text): RMSNorm with an offset, GeGLU, embeddings multiplied by sqrt(d).

Gemma 2 adds norms after each branch, soft caps and windows in every second layer. Gemma 3 adds
norms of queries and keys, and rotary positions of two bases: one for layers with a window, whose
positions are never scaled, and one for the others.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.huggingface.activations import GATED, activation_name, feed_forward_of
from feldspar.huggingface.adapter import LEARNING_RATE, Adapter, ModelDescription, require_values
from feldspar.huggingface.layer_types import FULL, WINDOW, layer_kinds, window_of
from feldspar.huggingface.rope_parameters import rope_parameters, rope_scaling
from feldspar.huggingface.tensor_rules import (
    TensorRule,
    gate_and_up_rows,
    in_each_block,
    linear,
    query_key_value_rows,
)
from feldspar.recipe.sections.block_parts import Biases, SlidingWindow
from feldspar.recipe.sections.model import ModelSettings, NormSettings, RotaryPositions
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.recipe.sections.position_scaling import NoScaling, PositionScaling

SCALAR, PATTERN = "query_pre_attn_scalar", "sliding_window_pattern"


class GemmaAdapter(Adapter):
    """Adapter to Gemma 1."""

    model_type = "gemma"
    hf_class = "GemmaForCausalLM"
    prefix = "model."
    ignored = (r".*\.rotary_emb\.inv_freq", r"lm_head\.weight")

    def kept_parametrization(self, description: ModelDescription) -> ParametrizationSettings:
        """Return the parametrization with the multiplier of embeddings, sqrt(d_model)."""
        return _parametrization(description.settings, description.settings.head_width)

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        settings = description.settings
        name = activation_name(settings.feed_forward, GATED)
        base = _rotary(settings).base
        return {
            "model_type": self.model_type,
            "architectures": [self.hf_class],
            "vocab_size": settings.vocab_size,
            "max_position_embeddings": settings.max_sequence_length,
            "hidden_size": settings.d_model,
            "num_hidden_layers": settings.n_layers,
            "num_attention_heads": settings.n_heads,
            "num_key_value_heads": settings.kv_heads,
            "head_dim": settings.head_width,
            "intermediate_size": settings.d_ff,
            "hidden_act": name,
            "hidden_activation": name,
            "rms_norm_eps": settings.norm.epsilon,
            "rope_theta": base,
            "rope_parameters": rope_parameters(description.scaling, base),
            "attention_bias": settings.biases.query_key_value,
            "tie_word_embeddings": settings.tied_embeddings,
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        rope = configuration.get("rope_parameters") or {}
        base = rope.get("rope_theta", configuration.get("rope_theta", 10000.0))
        # transformers reads the exact form, which first releases name, as the tanh form.
        name = configuration.get("hidden_activation") or configuration.get("hidden_act")
        tanh = {"hidden_act": "gelu_pytorch_tanh" if name in (None, "gelu") else name}
        settings = _settings(
            configuration,
            positions=RotaryPositions(base=float(base)),
            feed_forward=feed_forward_of(tanh, "hidden_act", GATED, "gelu_pytorch_tanh"),
        )
        parametrization = _parametrization(settings, settings.head_width)
        return ModelDescription(settings, parametrization, rope_scaling(configuration))

    def tensor_rules(self, settings: ModelSettings) -> tuple[TensorRule, ...]:
        """Return a rule for each tensor."""
        return tuple(_rules(settings))


class Gemma2Adapter(GemmaAdapter):
    """Adapter to Gemma 2."""

    model_type = "gemma2"
    hf_class = "Gemma2ForCausalLM"
    full_every = 2
    """The layers that see the whole context, where a configuration does not list them."""

    def kept_parametrization(self, description: ModelDescription) -> ParametrizationSettings:
        """Return the parametrization with the multipliers of embeddings and attention scores.

        The class divides scores by the root of a whole number; another divisor is folded.
        """
        settings, scalar = description.settings, description.forward.attention**-2
        whole = round(scalar)
        near = whole > 0 and math.isclose(scalar, whole, rel_tol=1e-9)
        return _parametrization(settings, whole if near else settings.head_width)

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        settings = description.settings
        window = settings.sliding_window
        configuration = super().to_configuration(description)
        del configuration["hidden_act"]
        return configuration | {
            SCALAR: round(description.forward.attention**-2),
            "attn_logit_softcapping": settings.attention_soft_cap,
            "final_logit_softcapping": settings.logit_soft_cap,
            "sliding_window": settings.max_sequence_length if window is None else window.tokens,
            "layer_types": layer_kinds(settings),
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        rope = configuration.get("rope_parameters") or {}
        base = rope.get("rope_theta", configuration.get("rope_theta", 10000.0))
        settings = _settings(
            configuration,
            norm_place="both",
            positions=RotaryPositions(base=float(base)),
            feed_forward=_feed_forward(configuration),
            sliding_window=self._window(configuration),
            attention_soft_cap=configuration.get("attn_logit_softcapping", 50.0),
            logit_soft_cap=configuration.get("final_logit_softcapping", 30.0),
        )
        scaling = rope_scaling(configuration)
        return ModelDescription(settings, _divided_scores(configuration, settings), scaling)

    def _window(self, configuration: Mapping[str, Any]) -> SlidingWindow | None:
        """Return the window of some layers; one wider than the context is cut to the context."""
        tokens, n_layers = configuration.get("sliding_window", 4096), _n_layers(configuration)
        every = configuration.get(PATTERN) or configuration.get(f"_{PATTERN}") or self.full_every
        kinds = configuration.get("layer_types") or [
            FULL if (layer + 1) % every == 0 else WINDOW for layer in range(n_layers)
        ]
        # A window wider than the context stays: the base of its layers' positions may be their own.
        tokens = None if tokens is None else min(tokens, configuration["max_position_embeddings"])
        return window_of({**configuration, "sliding_window": tokens, "layer_types": None}, kinds)


class Gemma3Adapter(Gemma2Adapter):
    """Adapter to the text model of Gemma 3."""

    model_type = "gemma3_text"
    hf_class = "Gemma3ForCausalLM"
    full_every = 6

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        settings, scaling = description.settings, description.scaling
        rotary = _rotary(settings)
        full = rope_parameters(scaling, rotary.base)
        plain = rope_parameters(NoScaling(), rotary.window_base or rotary.base)
        configuration = super().to_configuration(description)
        del configuration["rope_theta"]
        return configuration | {
            "rope_parameters": {FULL: full, WINDOW: plain if rotary.window_base else full},
            "use_bidirectional_attention": False,
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description. Raises UserError for what we do not compute."""
        require_values(configuration, {"attn_logit_softcapping": (None,)})
        window = self._window(configuration)
        positions, scaling = _two_bases(configuration, window is not None)
        settings = _settings(
            configuration,
            norm_place="both",
            query_key_norm="head",
            positions=positions,
            feed_forward=_feed_forward(configuration),
            sliding_window=window,
            logit_soft_cap=configuration.get("final_logit_softcapping"),
        )
        return ModelDescription(settings, _divided_scores(configuration, settings), scaling)


def _two_bases(
    configuration: Mapping[str, Any], has_window: bool
) -> tuple[RotaryPositions, PositionScaling]:
    """Return positions and their scaling, from the newer or the older of two forms."""
    rope = configuration.get("rope_parameters") or {}
    scaled = configuration.get("rope_scaling") or {}
    full = {"rope_theta": configuration.get("rope_theta", 1e6)} | scaled | (rope.get(FULL) or {})
    local = {"rope_theta": configuration.get("rope_local_base_freq", 1e4)}
    local |= rope.get(WINDOW) or {}
    scaling = rope_scaling({**configuration, "rope_parameters": full})
    same = local == full or not has_window
    if not same:
        kinds = {"rope_type": ("default",), "type": ("default",)}
        require_values(local, kinds)
    window_base = None if same else float(local["rope_theta"])
    return RotaryPositions(base=float(full["rope_theta"]), window_base=window_base), scaling


def _settings(
    configuration: Mapping[str, Any], norm_place: str = "before", **parts: Any
) -> ModelSettings:
    """Return the settings of a model of which ``parts`` differ between the generations."""
    require_values(configuration, {"use_bidirectional_attention": (None, False)})
    bias = configuration.get("attention_bias", False)
    norm = {"type": "rms", "epsilon": configuration.get("rms_norm_eps", 1e-6)}
    return ModelSettings(
        n_layers=_n_layers(configuration),
        d_model=configuration["hidden_size"],
        n_heads=configuration["num_attention_heads"],
        n_kv_heads=configuration["num_key_value_heads"],
        head_dim=configuration.get("head_dim", 256),
        d_ff=configuration["intermediate_size"],
        vocab_size=configuration["vocab_size"],
        max_sequence_length=configuration["max_position_embeddings"],
        norm=NormSettings.model_validate(norm | {"place": norm_place, "unit_offset": True}),
        bias=Biases(query_key_value=bias, attention_output=bias),
        tied_embeddings=configuration.get("tie_word_embeddings", True),
        **parts,
    )


def _feed_forward(configuration: Mapping[str, Any]) -> Any:
    return feed_forward_of(configuration, "hidden_activation", GATED, "gelu_pytorch_tanh")


def _n_layers(configuration: Mapping[str, Any]) -> int:
    return configuration["num_hidden_layers"]


def _divided_scores(
    configuration: Mapping[str, Any], settings: ModelSettings
) -> ParametrizationSettings:
    scalar = configuration.get(SCALAR, 256)
    if isinstance(scalar, bool) or not isinstance(scalar, int | float) or scalar <= 0:
        raise UserError(f"config.json: {SCALAR} is not a number above 0", found=scalar)
    return _parametrization(settings, scalar)


def _parametrization(settings: ModelSettings, scalar: float) -> ParametrizationSettings:
    """Return the multipliers of Gemma: sqrt(d) for embeddings, 1 / sqrt(scalar) for scores."""
    return ParametrizationSettings(
        learning_rate=LEARNING_RATE,
        embedding_multiplier=math.sqrt(settings.d_model),
        attention_multiplier=math.sqrt(settings.head_width / scalar),
    )


def _rotary(settings: ModelSettings) -> RotaryPositions:
    positions = settings.positions
    return positions if isinstance(positions, RotaryPositions) else RotaryPositions()


def _rules(settings: ModelSettings) -> Iterator[TensorRule]:
    yield from linear("token_embedding", "model.embed_tokens", False)
    bias, after = settings.biases.query_key_value, settings.norm.place == "both"
    projections = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    gated = ("mlp.gate_proj", "mlp.up_proj")
    norms = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
    if after:
        norms |= {
            "attention_output_norm": "post_attention_layernorm",
            "feed_forward_norm": "pre_feedforward_layernorm",
            "feed_forward_output_norm": "post_feedforward_layernorm",
        }
    if settings.query_key_norm == "head":
        norms |= {
            "attention.query_norm": "self_attn.q_norm",
            "attention.key_norm": "self_attn.k_norm",
        }
    block = [
        *linear("attention.query_key_value", projections, bias, query_key_value_rows(settings)),
        *linear("attention.output", "self_attn.o_proj", bias),
        *linear("feed_forward.input", gated, False, gate_and_up_rows(settings)),
        *linear("feed_forward.output", "mlp.down_proj", False),
    ]
    for ours, theirs in norms.items():
        block += linear(ours, theirs, False)
    yield from in_each_block(block, settings, "model.layers.{}.")
    yield from linear("final_norm", "model.norm", False)
    if not settings.tied_embeddings:
        yield from linear("output", "lm_head", False)
