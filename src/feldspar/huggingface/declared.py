"""Multipliers that a ``config.json`` declares, under the names of BTLM's release (2309.11568).

Weights with multipliers give wrong results in a class that ignores them. Hence a configuration must
declare all of the multipliers or none.
"""

import math
from collections.abc import Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.huggingface.folding import plain_multipliers
from feldspar.parametrization.tables import ForwardMultipliers
from feldspar.recipe.sections.model import ModelSettings

EMBEDDING, OUTPUT, WIDTH = "mup_embeddings_scale", "mup_output_alpha", "mup_width_scale"
ATTENTION = "mup_scale_qk_dot_by_d"
NAMES = (EMBEDDING, OUTPUT, WIDTH, ATTENTION)


def declared_multipliers(
    configuration: Mapping[str, Any], settings: ModelSettings
) -> ForwardMultipliers:
    """Return the multipliers that a ``config.json`` declares; plain ones when it declares none.

    Raises UserError when a parametrization other than ``sp``, or some multiplier, is named but not
    all multipliers are given, and for values that are not numbers above 0.
    """
    parametrization = configuration.get("parametrization", "sp")
    given = [name for name in NAMES if configuration.get(name) is not None]
    if parametrization == "sp" and not given:
        return plain_multipliers(settings)
    missing = [name for name in NAMES if name not in given]
    if missing:
        raise UserError(
            f"config.json: {missing[0]} is missing, but the model is not a standard one",
            found=f"parametrization {parametrization}, {', '.join(given) or 'no multipliers'}",
            allowed=f"all of {', '.join(NAMES)}",
            do="get the configuration that the weights were released with, or fold them there",
        )
    embedding, output, width = (_factor(configuration, name) for name in NAMES[:3])
    if not isinstance(configuration[ATTENTION], bool):
        raise UserError(
            f"config.json: {ATTENTION} is neither true nor false", found=configuration[ATTENTION]
        )
    plain = plain_multipliers(settings)
    attention = 1 / settings.head_width if configuration[ATTENTION] else plain.attention
    return ForwardMultipliers(embedding, plain.residual, attention, output * width)


def _factor(configuration: Mapping[str, Any], name: str) -> float:
    value = configuration[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f"config.json: {name} is not a finite number above 0", found=value)
    return float(value)
