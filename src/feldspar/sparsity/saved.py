"""Save masks in a checkpoint as packed bits, each with shape, kept count and digest."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from feldspar.core.errors import RunError
from feldspar.recipe.sections.sparsity import Sparsity
from feldspar.sparsity.masks import Masks

KEY = "sparsity"
PREFIX, EVER_PREFIX = "mask/", "ever_active/"


def masks_to_state(masks: Masks) -> dict[str, Any]:
    """Return the masks as plain values, and under ``tensors`` the packed bits, for a checkpoint's
    state."""
    if not masks.tensors:
        return {}
    records, tensors = _packed(masks.tensors, PREFIX)
    plain = {
        "settings": json.loads(masks.settings.model_dump_json()),
        "seed": masks.seed,
        "masks": records,
    }
    if masks.ever:
        plain["ever_active"], ever = _packed(masks.ever, EVER_PREFIX)
        tensors |= ever
    return {KEY: plain, "tensors": tensors}


def masks_from_state(state: Mapping[str, Any], where: str) -> Masks:
    """Return the masks in a checkpoint's state; none if it was dense.

    Raises RunError for a mask that is missing or differs from the saved one.
    """
    if KEY not in state:
        return Masks()
    plain, tensors = state[KEY], state.get("tensors", {})
    masks = _unpacked(plain["masks"], tensors, PREFIX, where)
    ever = _unpacked(plain.get("ever_active", {}), tensors, EVER_PREFIX, where)
    settings = TypeAdapter(Sparsity).validate_json(json.dumps(plain["settings"]))
    return Masks(masks, settings, plain["seed"], ever)


def describe_masks(masks: Masks) -> dict[str, Any]:
    """Return the settings of the masks and their digest, for an exported model.

    The key ``pattern`` says how zeros lie: ``unstructured``, ``block``, or N:M.
    """
    settings = json.loads(masks.settings.model_dump_json())
    return {
        "pattern": "block" if "block" in settings else "unstructured",
        **settings,
        "seed": masks.seed,
        "digest": digest_of_masks(masks),
    }


def digest_of_masks(masks: Masks) -> str:
    """Return one digest of all masks; it is equal only if names, shapes and entries are."""
    state = hashlib.sha256()
    for name in sorted(masks.tensors):
        mask = masks.tensors[name]
        state.update(f"{name}{tuple(mask.shape)}{_digest(_pack(mask))}".encode())
    return state.hexdigest()


def _packed(
    masks: Mapping[str, Tensor], prefix: str
) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """Return the records of masks, and their packed bits under the names of a checkpoint."""
    bits = {name: _pack(mask) for name, mask in masks.items()}
    records = {
        name: {
            "shape": list(mask.shape),
            "kept": int(mask.sum()),
            "sha256": _digest(bits[name]),
        }
        for name, mask in masks.items()
    }
    return records, {prefix + name: packed for name, packed in bits.items()}


def _unpacked(
    records: Mapping[str, Mapping[str, Any]],
    tensors: Mapping[str, Tensor],
    prefix: str,
    where: str,
) -> dict[str, Tensor]:
    """Return the masks of some records; raise RunError for one that is missing or differs."""
    masks: dict[str, Tensor] = {}
    for name, record in records.items():
        bits = tensors.get(prefix + name)
        if bits is None or _digest(bits) != record["sha256"]:
            what = "is absent" if bits is None else "is not the one that was saved"
            raise RunError(
                f"the mask of {name} {what}", where=where, do="restore the checkpoint from a copy"
            )
        masks[name] = _unpack(bits, tuple(record["shape"]))
    return masks


def _pack(mask: Tensor) -> Tensor:
    """Pack eight entries in each byte, the first in the highest bit."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy()))


def _unpack(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    entries = np.unpackbits(bits.numpy(), count=math.prod(shape))
    return torch.from_numpy(entries.view(np.bool_)).view(shape)


def _digest(bits: Tensor) -> str:
    return hashlib.sha256(bits.numpy().tobytes()).hexdigest()
