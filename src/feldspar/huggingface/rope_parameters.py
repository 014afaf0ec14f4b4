"""Convert scaled rotary positions to transformers' vocabulary (``rope_parameters``) and back."""

import math
from collections.abc import Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import require_values
from feldspar.model.position_scaling import LLAMA3_FAST_TURNS, LLAMA3_SLOW_TURNS
from feldspar.recipe.sections.model import ModelSettings, RotaryPositions
from feldspar.recipe.sections.position_scaling import (
    LinearScaling,
    Llama3Scaling,
    NoScaling,
    NtkScaling,
    PositionScaling,
    YarnScaling,
)

ORIGINAL = "original_max_position_embeddings"
LLAMA3_KEYS = {"low_freq_factor": LLAMA3_SLOW_TURNS, "high_freq_factor": LLAMA3_FAST_TURNS}
TURNS = {
    "beta_fast": "fast_turns",
    "beta_slow": "slow_turns",
    "attention_factor": "attention_factor",
}
"""Names of YaRN's settings, by key."""
DEFAULTS = {"partial_rotary_factor": (None, 1.0), "truncate": (None, True)}
"""The values that we compute with; other values are refused."""
KINDS = ("default", "linear", "dynamic", "yarn", "llama3")


def rotary_of(settings: ModelSettings) -> RotaryPositions:
    """Return the rotary positions; the default ones for a model that has others."""
    positions = settings.positions
    return positions if isinstance(positions, RotaryPositions) else RotaryPositions()


def rope_base(configuration: Mapping[str, Any], default: float = 10000.0) -> float:
    """Return the base of a ``config.json``, from the newer or the older of its two places."""
    rope = configuration.get("rope_parameters") or {}
    return float(rope.get("rope_theta", configuration.get("rope_theta", default)))


def rope_parameters(scaling: PositionScaling, base: float) -> dict[str, Any]:
    """Return the mapping of a scaling; one that transformers lacks is left out."""
    plain = {"rope_type": "default", "rope_theta": base}
    match scaling:
        case LinearScaling(factor=float(factor)):
            return plain | {"rope_type": "linear", "factor": factor}
        case NtkScaling(train_length=int()):
            return plain | {"rope_type": "dynamic", "factor": scaling.factor}
        case YarnScaling():
            turns = _turns(scaling)
        case Llama3Scaling():
            turns = LLAMA3_KEYS
        case _:
            return plain
    kept = {"factor": scaling.factor, ORIGINAL: scaling.train_length}
    return plain | {"rope_type": scaling.type} | kept | turns


def _turns(scaling: YarnScaling) -> dict[str, float]:
    """Return the keys of YaRN that differ from their defaults."""
    defaults = YarnScaling.model_fields
    values = {key: getattr(scaling, name) for key, name in TURNS.items()}
    return {key: v for key, v in values.items() if v != defaults[TURNS[key]].default}


def rope_scaling(configuration: Mapping[str, Any]) -> PositionScaling:
    """Return the scaling of a ``config.json``, from the newer or the older of its two places.

    Raises UserError for a kind, or a value, that we would compute differently.
    """
    found = configuration.get("rope_parameters") or configuration.get("rope_scaling") or {}
    kind = found.get("rope_type", found.get("type", "default"))
    require_values(found, DEFAULTS)
    if kind == "default":
        return NoScaling()
    if kind not in KINDS:
        raise UserError(
            "config.json: rope_type is not supported with this value",
            found=repr(kind),
            allowed=", ".join(map(repr, KINDS)),
        )
    factor = float(found["factor"])
    if kind == "linear":
        return LinearScaling(type="linear", factor=factor)
    length = configuration["max_position_embeddings"]
    if kind == "dynamic":
        return NtkScaling(type="ntk", factor=factor, train_length=length)
    original = found.get(ORIGINAL) or length
    if kind == "yarn":
        given = {name: found[key] for key, name in TURNS.items() if found.get(key)}
        given = _factor_of_mscale(found, factor) | given
        return YarnScaling(type="yarn", factor=factor, train_length=original, **given)
    require_values(found, {key: (float(value), value) for key, value in LLAMA3_KEYS.items()})
    return Llama3Scaling(type="llama3", factor=factor, train_length=original)


def _factor_of_mscale(yarn: Mapping[str, Any], factor: float) -> dict[str, float]:
    """Return the factor of cosine and sine that mscale and mscale_all_dim together stand for."""
    one, every = yarn.get("mscale"), yarn.get("mscale_all_dim")
    if not one or not every:
        return {}
    return {
        "attention_factor": (0.1 * one * math.log(factor) + 1)
        / (0.1 * every * math.log(factor) + 1)
    }
