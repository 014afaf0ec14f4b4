"""Read and write a folder's weights: safetensors only, one file or several with an index."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from feldspar.core.artifact import Wanted, finish_artifact
from feldspar.core.errors import RunError, UserError
from feldspar.core.files import disk_errors
from feldspar.core.json_files import read_json, write_json

KIND = "model"
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
LARGEST_FILE_BYTES = 5 * 10**9


def finish_model_folder(folder: Path) -> None:
    """Write the manifest of a model folder that is otherwise complete; readers verify it."""
    finish_artifact(folder, Wanted(KIND))


def write_weights(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Write the tensors into files of at most 5 GB each (or of one tensor, if that is larger)."""
    groups: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in state.items():
        size = tensor.numel() * tensor.element_size()
        if groups[-1] and filled + size > LARGEST_FILE_BYTES:
            groups.append({})
            filled = 0
        groups[-1][name] = tensor.detach().cpu().contiguous()
        filled += size
    if len(groups) == 1:
        save_tensors(groups[0], folder / WEIGHTS_NAME)
        return
    places = {}
    for number, group in enumerate(groups, start=1):
        file_name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        save_tensors(group, folder / file_name)
        places.update(dict.fromkeys(group, file_name))
    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_json(folder / INDEX_NAME, index, ascii_only=True)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write one safetensors file. Raises SetupError where the system refuses it."""
    with disk_errors(path):
        save_file(tensors, path, metadata={"format": "pt"})


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a folder.

    Raises UserError when there are none, or only pickled ones; RunError when a file is damaged.
    """
    if (folder / INDEX_NAME).is_file():
        places = read_json(folder / INDEX_NAME).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(n, str) for n in places.values()):
            raise UserError(
                f"{folder / INDEX_NAME}: weight_map does not name a file for each tensor",
                found=type(places).__name__,
            )
        names = sorted(set(places.values()))
        escaping = [name for name in names if Path(name).name != name]
        if escaping:
            raise UserError(f"{folder / INDEX_NAME} names a file outside its folder: {escaping[0]}")
    elif (folder / WEIGHTS_NAME).is_file():
        names = [WEIGHTS_NAME]
    else:
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        if pickles:
            raise UserError(
                f"{folder} holds pickled weights only ({pickles[0]}); reading them could run code",
                do="convert them to safetensors with a tool you trust, then import again",
            )
        raise UserError(f"{folder} holds no {WEIGHTS_NAME}")
    state: dict[str, Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            raise RunError(f"{folder / name} is missing, though the index names it")
        try:
            state.update(load_file(folder / name))
        except SafetensorError as error:
            raise RunError(f"{folder / name} is damaged: {error}") from error
    return state


def require_names(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise UserError unless ``state`` has exactly these names and shapes, all of floats."""
    missing = [name for name in shapes if name not in state]
    unknown = [name for name in state if name not in shapes]
    if missing or unknown:
        raise UserError(
            "the weights do not fit the configuration",
            found=f"missing {missing[:3]}, unknown {unknown[:3]}",
        )
    for name, shape in shapes.items():
        tensor = state[name]
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"{name} has another shape than the configuration says",
                found=tuple(tensor.shape),
                allowed=str(shape),
            )
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            raise UserError(f"{name} does not hold floating-point numbers", found=tensor.dtype)


def require_finite(state: Mapping[str, Tensor]) -> None:
    """Raise UserError that names the first tensor with a NaN or an infinity."""
    for name, tensor in state.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise UserError(
                f"{name} holds numbers that are not finite",
                found=f"{bad:,} of {tensor.numel():,}",
                do="get the weights again from where they were published",
            )
