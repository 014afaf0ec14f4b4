"""Rotary positions in GGUF's metadata, and as ``rope_parameters`` of a ``config.json``."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.huggingface.rope_parameters import LLAMA3_KEYS, ORIGINAL
from feldspar.model.position_scaling import LLAMA3_FAST_TURNS, LLAMA3_SLOW_TURNS

BASE = "rope.freq_base"
SCALING, FACTOR = "rope.scaling.type", "rope.scaling.factor"
TRAINED = "rope.scaling.original_context_length"
FREQUENCIES = "rope_freqs.weight"
"""The tensor of factors by which llama.cpp divides the frequencies, for Llama 3's scaling."""
ROTARY_KEYS = (BASE, SCALING, FACTOR, TRAINED)
DEFAULT_BASE = 10_000.0


def rotary_metadata(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return GGUF's keys of ``rope_parameters``; ``llama3`` is said by a tensor instead."""
    found: dict[str, Any] = {BASE: float(parameters["rope_theta"])}
    kind = parameters["rope_type"]
    if kind in ("linear", "yarn"):
        found |= {SCALING: kind, FACTOR: float(parameters["factor"])}
    if kind == "yarn":
        found[TRAINED] = int(parameters[ORIGINAL])
    return found


def rotary_parameters(
    metadata: Mapping[str, Any], frequencies: Tensor | None, head_dim: int
) -> dict[str, Any]:
    """Return ``rope_parameters``; ``metadata`` has keys without the architecture's name.

    Raises UserError for a scaling that transformers has no name for.
    """
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


def llama3_frequencies(parameters: Mapping[str, Any], head_dim: int) -> Tensor:
    """Return the factors by which Llama 3's scaling divides each frequency, as float32."""
    return _factors(
        float(parameters["factor"]), int(parameters[ORIGINAL]), parameters["rope_theta"], head_dim
    ).float()


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
