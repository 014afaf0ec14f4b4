"""Weights as the authors of RevBiFPN published them: names of their code to names of ours.

A checkpoint is the state dict of their network, written by ``torch.save``; read without unpickling
anything but tensors.
"""

import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.vision.revbifpn import RevBiFPN

INSIDE = {
    "layers.expand.convolution": "exp_conv.conv",
    "layers.expand.norm": "exp_conv.norm",
    "layers.depthwise.convolution": "dw_conv.conv",
    "layers.depthwise.norm": "dw_conv.norm",
    "layers.excitation.squeeze": "se.se.1",
    "layers.excitation.excite": "se.se.3",
    "layers.project.convolution": "project_conv.conv",
    "layers.project.norm": "project_conv.norm",
    "final.convolution": "head.final_conv.conv",
    "final.norm": "head.final_conv.norm",
    "classifier": "head.fc",
}
_FUNCTION = re.compile(r"backbone\.blocks\.(\d+)\.functions\.([a-z]+)_(\d+)(?:_(\d+))?\.(.+)")


def authors_name(name: str, n_outputs: Sequence[int]) -> str:
    """Return their name of one of our tensors.

    ``n_outputs`` holds the number of streams that each of our blocks returns.
    """
    if found := _FUNCTION.fullmatch(name):
        block, kind, first, second, rest = found.groups()
        stack = f"rev_stack.{int(block) + 1}"  # theirs begins with the stem
        if kind in ("first", "second"):
            half = "f" if kind == "first" else "g"
            return f"{stack}.rev_transform_{first}.{half}.xform_0_1.{_inside(rest)}"
        if kind == "down":
            return f"{stack}.f.xform_{first}_{second}.{_inside(rest)}"
        # On the way up theirs counts streams from the coarsest; interpolation follows the block.
        last = n_outputs[int(block)] - 1
        return f"{stack}.g.xform_{last - int(first)}_{last - int(second or 0)}.0.{_inside(rest)}"
    part, number, rest = (*name.split(".", 2), "")[:3]
    if part == "neck":
        return f"rev_stack.recomp_op.recomp_transform_{number}.{_inside(rest)}"
    if part == "head":
        return f"head.pyramid_heads.{number}.{_inside(rest)}"
    return _inside(name)


def authors_names(network: RevBiFPN) -> dict[str, str]:
    """Map the name of each tensor of our network to the name in their code."""
    n_outputs = [block.n_outputs for block in network.backbone.in_order]
    return {name: authors_name(name, n_outputs) for name in network.state_dict()}


def read_authors_weights(
    path: Path, network: RevBiFPN, key: str = "start_from.path"
) -> dict[str, Tensor]:
    """Return the tensors of their checkpoint under the names of ``network``, shapes unchecked.

    ``key`` is the setting or argument that named the file, for messages. Raises UserError
    for a file that is no state dict of tensors, or one of another network.
    """
    theirs = _state_dict(path, key)
    names = authors_names(network)
    missing = [other for other in names.values() if other not in theirs]
    unknown = sorted(set(theirs) - set(names.values()))
    if missing or unknown:
        raise UserError(
            f"{key}: {path.name} is not the authors' checkpoint of this network",
            found=f"{len(missing)} tensors are missing, {len(unknown)} are unknown, "
            f"such as {(missing or unknown)[0]}",
            do="choose the size of the checkpoint",
        )
    return {ours: theirs[other] for ours, other in names.items()}


def _inside(rest: str) -> str:
    holder, _, kind = rest.rpartition(".")
    return f"{INSIDE[holder]}.{kind}"


def _state_dict(path: Path, key: str) -> dict[str, Tensor]:
    try:
        value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{key}: {path} cannot be read as weights", found=str(error)) from error
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict) or not all(isinstance(item, Tensor) for item in value.values()):
        raise UserError(f"{key}: {path} holds no state dict of tensors")
    return value
