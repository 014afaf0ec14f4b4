"""Convert scaled rotary positions to transformers' vocabulary (``rope_parameters``) and back."""

from collections.abc import Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import require_values
from feldspar.model.export_class import rope_misfit
from feldspar.model.position_scaling import LLAMA3_FAST_TURNS, LLAMA3_SLOW_TURNS
from feldspar.recipe.sections.model import (
    LinearScaling,
    Llama3Scaling,
    NoScaling,
    NtkScaling,
    PositionScaling,
    YarnScaling,
)

ORIGINAL = "original_max_position_embeddings"
LLAMA3_KEYS = {"low_freq_factor": LLAMA3_SLOW_TURNS, "high_freq_factor": LLAMA3_FAST_TURNS}
DEFAULTS = {
    "partial_rotary_factor": (None, 1.0),
    "beta_fast": (None, 32),
    "beta_slow": (None, 1),
    "attention_factor": (None,),
    "mscale": (None,),
    "mscale_all_dim": (None,),
    "truncate": (None, True),
}
"""The values that we compute with; other values are refused."""


def rope_parameters(scaling: PositionScaling, base: float) -> dict[str, Any]:
    """Return the mapping of a scaling; one that transformers lacks is left out."""
    if isinstance(scaling, NoScaling | NtkScaling) or rope_misfit(scaling):
        return {"rope_type": "default", "rope_theta": base}
    found = {"rope_type": scaling.type, "rope_theta": base, "factor": scaling.factor}
    if isinstance(scaling, YarnScaling | Llama3Scaling):
        found[ORIGINAL] = scaling.train_length
    if isinstance(scaling, Llama3Scaling):
        found |= LLAMA3_KEYS
    return found


def rope_scaling(configuration: Mapping[str, Any]) -> PositionScaling:
    """Return the scaling of a ``config.json``, from the newer or the older of its two places.

    Raises UserError for a kind, or a value, that we would compute differently.
    """
    found = configuration.get("rope_parameters") or configuration.get("rope_scaling") or {}
    kind = found.get("rope_type", found.get("type", "default"))
    require_values(found, DEFAULTS)
    if kind == "default":
        return NoScaling()
    if kind not in ("linear", "yarn", "llama3"):
        raise UserError(
            "config.json: rope_type is not supported with this value",
            found=repr(kind),
            allowed="'default', 'linear', 'yarn', 'llama3'",
        )
    factor = float(found["factor"])
    if kind == "linear":
        return LinearScaling(type="linear", factor=factor)
    if kind == "yarn":
        original = found.get(ORIGINAL) or configuration["max_position_embeddings"]
        return YarnScaling(type="yarn", factor=factor, train_length=original)
    require_values(found, {key: (float(value), value) for key, value in LLAMA3_KEYS.items()})
    return Llama3Scaling(type="llama3", factor=factor, train_length=found[ORIGINAL])
