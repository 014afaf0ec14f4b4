"""Multipliers that a ``config.json`` declares, under the names of BTLM's release (2309.11568).

Weights with multipliers give wrong results in a class that ignores them. Hence a configuration must
declare all of the multipliers or none.
"""

import math
from collections.abc import Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import LEARNING_RATE, STANDARD
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings

EMBEDDING, OUTPUT, WIDTH = "mup_embeddings_scale", "mup_output_alpha", "mup_width_scale"
ATTENTION = "mup_scale_qk_dot_by_d"
NAMES = (EMBEDDING, OUTPUT, WIDTH, ATTENTION)


def declared_parametrization(
    configuration: Mapping[str, Any], settings: ModelSettings
) -> ParametrizationSettings:
    """Return the parametrization that a ``config.json`` declares; ``sp`` when it declares none.

    Raises UserError when a parametrization other than ``sp``, or some multiplier, is named but not
    all multipliers are given, and for values that are not numbers above 0.
    """
    parametrization = configuration.get("parametrization", "sp")
    given = [name for name in NAMES if configuration.get(name) is not None]
    if parametrization == "sp" and not given:
        return STANDARD
    missing = [name for name in NAMES if name not in given]
    if missing:
        raise UserError(
            f"config.json: {missing[0]} is missing, but the model is not a standard one",
            found=f"parametrization {parametrization}, {', '.join(given) or 'no multipliers'}",
            allowed=f"all of {', '.join(NAMES)}",
            do="get the configuration that the weights were released with, or fold them there",
        )
    embedding, output, width = (positive_number(configuration, name) for name in NAMES[:3])
    by_width = true_or_false(configuration, ATTENTION)
    return mup(settings, embedding, output, width, by_width)


def declares_multipliers(configuration: Mapping[str, Any]) -> bool:
    """Tell whether a ``config.json`` names a multiplier."""
    return any(configuration.get(name) is not None for name in NAMES)


def mup(
    settings: ModelSettings, embedding: float, output: float, width: float, by_width: bool
) -> ParametrizationSettings:
    """Return muP with a base of ``width`` times the model's width, and these multipliers.

    Logits are multiplied by ``output * width``. ``by_width`` divides attention scores by head_dim
    instead of by its root.
    """
    base = max(1, round(width * settings.d_model))
    # A base that is no whole number is rounded; the product stays that of the configuration.
    rounding = width * settings.d_model / base
    exact = math.isclose(rounding, 1, rel_tol=1e-12)
    return ParametrizationSettings(
        type="mup",
        base_d_model=base,
        base_d_ff=width * settings.d_ff,
        learning_rate=LEARNING_RATE,
        embedding_multiplier=embedding,
        output_multiplier=output if exact else output * rounding,
        attention_multiplier=1.0 if by_width else math.sqrt(settings.head_width),
    )


def positive_number(configuration: Mapping[str, Any], name: str) -> float:
    """Return a value of a ``config.json``; UserError unless it is a finite number above 0."""
    value = configuration[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f"config.json: {name} is not a finite number above 0", found=value)
    return float(value)


def true_or_false(configuration: Mapping[str, Any], name: str) -> bool:
    """Return a value of a ``config.json``. Raises UserError unless it is true or false."""
    value = configuration[name]
    if not isinstance(value, bool):
        raise UserError(f"config.json: {name} is neither true nor false", found=value)
    return value
