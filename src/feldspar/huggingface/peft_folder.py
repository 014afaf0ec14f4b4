"""Write the updates of LoRA as a folder that ``peft`` loads over a model of the class.

Maps of the class that come from one fused matrix of ours share its A, and split the rows of its B.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from feldspar.core.json_files import write_json
from feldspar.huggingface.adapter import Adapter, ModelDescription
from feldspar.huggingface.multipliers import WithMultipliers
from feldspar.huggingface.tensor_rules import Transposed
from feldspar.recipe.sections.lora import LoraSettings
from feldspar.runtime.tensor_file import save_tensors

CONFIGURATION_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PREFIX = "base_model.model."


@dataclass(frozen=True)
class Update:
    """The update of one matrix of ours: ``alpha / rank * up @ down``."""

    down: Tensor
    """A, (rank, in)."""
    up: Tensor
    """B, (out, rank), with zeros in the rows that are no target."""


def write_adapter(
    folder: Path,
    updates: Mapping[str, Update],
    settings: LoraSettings,
    adapter: Adapter,
    given: ModelDescription,
    expressed: ModelDescription,
    base: str,
    dtype: torch.dtype,
) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` into ``folder``.

    ``updates`` are by the name of the matrix that they change, under the multipliers of ``given``.
    ``expressed`` describes the model in the class of ``adapter``, and ``base`` is the place of that
    model.
    """
    tensors: dict[str, Tensor] = {}
    modules = []
    transposed = False
    for module, update, turned in _their_updates(updates, adapter, given, expressed):
        modules.append(module)
        transposed |= turned
        for name, tensor in (("lora_A", update.down), ("lora_B", update.up)):
            # A copy: what shares memory would be stored once.
            tensors[f"{PREFIX}{module}.{name}.weight"] = tensor.to(dtype).clone().contiguous()
    save_tensors(tensors, folder / WEIGHTS_NAME)
    configuration = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": _in_short(modules, adapter, expressed),
        "fan_in_fan_out": transposed,
        "bias": "none",
        "inference_mode": True,
        "modules_to_save": None,
    }
    write_json(folder / CONFIGURATION_NAME, configuration, ascii_only=True)


def _their_updates(
    updates: Mapping[str, Update],
    adapter: Adapter,
    given: ModelDescription,
    expressed: ModelDescription,
) -> Iterator[tuple[str, Update, bool]]:
    """Yield each linear map of the class that has an update, and whether it stores (in, out)."""
    for rule in adapter.tensor_rules(expressed.settings):
        if rule.ours not in updates:
            continue
        update, layout = updates[rule.ours], rule.layout
        # A multiplier of rows of the matrix multiplies these rows of B.
        settings, old, new = expressed.settings, given.forward, expressed.forward
        up = WithMultipliers({rule.ours: update.up}, settings, old, new)[rule.ours]
        turned = isinstance(layout, Transposed)
        parts = layout.inner.split(up) if isinstance(layout, Transposed) else layout.split(up)
        for name, part in zip(rule.theirs, parts, strict=True):
            if part.any() or not update.up.any():
                yield name.removesuffix(".weight"), Update(update.down, part), turned


def _in_short(modules: Sequence[str], adapter: Adapter, expressed: ModelDescription) -> list[str]:
    """Return the last two parts of the names where all blocks have the same; else the names."""
    ends = {".".join(name.split(".")[-2:]) for name in modules}
    everywhere = [
        theirs.removesuffix(".weight")
        for rule in adapter.tensor_rules(expressed.settings)
        for theirs in rule.theirs
        if theirs.endswith(".weight") and re.match(r"blocks\.\d+\.", rule.ours)
    ]
    named = [name for name in everywhere if ".".join(name.split(".")[-2:]) in ends]
    return sorted(ends) if set(named) == set(modules) else list(modules)
