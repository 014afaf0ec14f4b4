"""Rotary positions in GGUF's metadata, and in a ``config.json``."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.huggingface.layer_types import FULL, WINDOW
from feldspar.huggingface.rope_parameters import LLAMA3_KEYS, ORIGINAL
from feldspar.model.position_scaling import LLAMA3_FAST_TURNS, LLAMA3_SLOW_TURNS

BASE, WINDOW_BASE = "rope.freq_base", "rope.freq_base_swa"
SCALING, FACTOR = "rope.scaling.type", "rope.scaling.factor"
TRAINED = "rope.scaling.original_context_length"
ROTARY_WIDTH = "rope.dimension_count"
FREQUENCIES = "rope_freqs.weight"
"""The tensor of factors by which llama.cpp divides the frequencies, for Llama 3's scaling."""
ROTARY_KEYS = (BASE, WINDOW_BASE, SCALING, FACTOR, TRAINED, ROTARY_WIDTH)
FRACTION = "partial_rotary_factor"
SAID_OF_ROTATION = (
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
    FRACTION,
    "rotary_pct",
    "rotary_emb_base",
)
"""Keys of ``config.json`` that say the same as ``rope_parameters``."""
DEFAULT_BASE = 10_000.0
KINDS = {
    "default": set(),
    "linear": {"factor"},
    "yarn": {"factor", ORIGINAL},
    "llama3": {"factor", ORIGINAL, *LLAMA3_KEYS},
}
"""The scalings that GGUF can say, and their keys."""
Rotary = Literal["whole", "partial", "two bases"] | None


def rotary_metadata(
    configuration: Mapping[str, Any], head_dim: int, rotary: Rotary
) -> dict[str, Any]:
    """Return GGUF's keys; ``llama3`` is said by a tensor instead (``rotary_frequencies``).

    Raises UserError for a scaling that llama.cpp lacks.
    """
    if rotary is None:
        return {}
    parameters = configuration["rope_parameters"]
    found: dict[str, Any] = {}
    if rotary == "two bases":
        plain, parameters = parameters[WINDOW], parameters[FULL]
        _require_kind(plain, ("default",))
        found[WINDOW_BASE] = float(plain["rope_theta"])
    kind = _require_kind(parameters, tuple(KINDS))
    found[BASE] = float(parameters["rope_theta"])
    found[ROTARY_WIDTH] = int(head_dim * parameters.get(FRACTION, 1.0))
    if kind in ("linear", "yarn"):
        found |= {SCALING: kind, FACTOR: float(parameters["factor"])}
    if kind == "yarn":
        found[TRAINED] = int(parameters[ORIGINAL])
    return found


def rotary_configuration(
    metadata: Mapping[str, Any], frequencies: Tensor | None, head_dim: int, rotary: Rotary
) -> dict[str, Any]:
    """Return the keys of a ``config.json``; ``metadata`` has keys without the architecture's name.

    Raises UserError for a scaling that transformers has no name for.
    """
    if rotary is None:
        return {}
    parameters = _parameters(metadata, frequencies, head_dim)
    width = metadata.get(ROTARY_WIDTH, head_dim)
    if rotary == "partial":
        parameters[FRACTION] = width / head_dim
    elif width != head_dim:
        raise UserError(
            f"{ROTARY_WIDTH} is not supported with this value",
            found=width,
            allowed=f"{head_dim}, the width of a head",
        )
    if rotary == "two bases":
        base = float(metadata.get(WINDOW_BASE, DEFAULT_BASE))
        plain = {"rope_type": "default", "rope_theta": base}
        return {"rope_parameters": {FULL: parameters, WINDOW: plain}}
    return {"rope_theta": parameters["rope_theta"], "rope_parameters": parameters}


def rotary_frequencies(configuration: Mapping[str, Any], head_dim: int) -> Tensor | None:
    """Return the factors by which Llama 3's scaling divides each frequency; None without it."""
    parameters = configuration.get("rope_parameters") or {}
    if parameters.get("rope_type") != "llama3":
        return None
    factor, trained = float(parameters["factor"]), int(parameters[ORIGINAL])
    return _factors(factor, trained, parameters["rope_theta"], head_dim).float()


def _require_kind(parameters: Mapping[str, Any], allowed: tuple[str, ...]) -> str:
    kind = parameters["rope_type"]
    others = parameters.keys() - {"rope_type", "rope_theta", FRACTION, *KINDS.get(kind, ())}
    if kind not in allowed or others:
        raise UserError(
            "llama.cpp does not have this scaling of positions",
            found=", ".join(f"{key}: {value}" for key, value in parameters.items()),
            allowed=", ".join(allowed) + ", without other keys",
            do="export with --format hf",
        )
    return kind


def _parameters(
    metadata: Mapping[str, Any], frequencies: Tensor | None, head_dim: int
) -> dict[str, Any]:
    base = float(metadata.get(BASE, DEFAULT_BASE))
    kind = metadata.get(SCALING, "none")
    if kind not in ("none", "linear", "yarn") or (frequencies is not None and kind != "none"):
        raise UserError(
            f"{SCALING} is not supported with this value",
            found=kind if frequencies is None else f"{kind} beside the tensor {FREQUENCIES}",
            allowed="none, linear, yarn",
        )
    if frequencies is not None:
        return {"rope_type": "llama3", "rope_theta": base} | _llama3(frequencies, base, head_dim)
    if kind == "none":
        return {"rope_type": "default", "rope_theta": base}
    found = {"rope_type": kind, "rope_theta": base, "factor": float(metadata[FACTOR])}
    if kind == "yarn" and TRAINED in metadata:
        found[ORIGINAL] = int(metadata[TRAINED])
    return found


def _factors(factor: float, trained: float, base: float, head_dim: int) -> Tensor:
    powers = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    turns = trained * base**-powers / (2 * torch.pi)
    share = (turns - LLAMA3_SLOW_TURNS) / (LLAMA3_FAST_TURNS - LLAMA3_SLOW_TURNS)
    kept = share.clamp(0, 1)
    return 1 / ((1 - kept) / factor + kept)


def _llama3(frequencies: Tensor, base: float, head_dim: int) -> dict[str, Any]:
    """Find the scaling's settings from its factors. Raises UserError where there are none."""
    found = frequencies.double()
    factor = float(found.max())
    middle = (found > 1) & (found < factor)
    if len(found) == head_dim // 2 and factor > 1 and bool(middle.any()):
        place = int(middle.nonzero()[0])
        kept = (1 / float(found[place]) - 1 / factor) / (1 - 1 / factor)
        turns = LLAMA3_SLOW_TURNS + kept * (LLAMA3_FAST_TURNS - LLAMA3_SLOW_TURNS)
        trained = round(turns * 2 * torch.pi * base ** (2 * place / head_dim))
        if torch.allclose(_factors(factor, trained, base, head_dim), found, rtol=1e-5):
            return {"factor": factor, ORIGINAL: trained, **LLAMA3_KEYS}
    raise UserError(
        f"{FREQUENCIES} holds factors that are not those of Llama 3's scaling of positions",
        do="import the model from its Hugging Face folder, which says the scaling by name",
    )
