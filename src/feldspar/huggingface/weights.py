"""Read and write a folder's weights: safetensors only, one file or several with an index.

Tensors are read when they are asked for and written one after the other, so that no model lies in
memory as a whole.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from feldspar.core.artifact import Wanted, finish_artifact
from feldspar.core.errors import UserError
from feldspar.core.json_files import read_json, write_json
from feldspar.runtime.tensor_file import (
    LazyTensors,
    TensorFile,
    TensorFileWriter,
    TensorHeader,
    header_of,
)

KIND = "model"
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
LARGEST_FILE_BYTES = 5 * 10**9
PIECE_ENTRIES = 2**20
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def finish_model_folder(folder: Path) -> None:
    """Write the manifest of a model folder that is otherwise complete; readers verify it."""
    finish_artifact(folder, Wanted(KIND))


def write_weights(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, in their order, into files of at most 5 GB each (or of one larger tensor).

    Lazy tensors are read one at a time. Raises SetupError where the system refuses to write.
    """
    headers = {name: header_of(tensors, name) for name in tensors}
    groups: list[dict[str, TensorHeader]] = [{}]
    filled = 0
    for name, header in headers.items():
        if groups[-1] and filled + header.n_bytes > LARGEST_FILE_BYTES:
            groups.append({})
            filled = 0
        groups[-1][name] = header
        filled += header.n_bytes
    count = len(groups)
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    for name, group in zip(names if count > 1 else [WEIGHTS_NAME], groups, strict=True):
        with TensorFileWriter(folder / name, group) as writer:
            for tensor in group:
                writer.write(tensor, tensors[tensor])
    if count > 1:
        places = {t: name for name, group in zip(names, groups, strict=True) for t in group}
        total = sum(header.n_bytes for header in headers.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_json(folder / INDEX_NAME, index, ascii_only=True)


class FolderTensors(LazyTensors):
    """All tensors of a folder, by the names in its files.

    Raises UserError when there are none, or only pickled ones, and for an index that is not
    understood or names a missing file; RunError when a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        files = [TensorFile(folder / name) for name in _file_names(folder)]
        self._files = {name: file for file in files for name in file}

    def header(self, name: str) -> TensorHeader:
        """Return shape and type of a tensor."""
        return self._files[name].header(name)

    def __getitem__(self, name: str) -> Tensor:
        """Read a tensor."""
        return self._files[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _file_names(folder: Path) -> list[str]:
    index = folder / INDEX_NAME
    if not index.is_file():
        if (folder / WEIGHTS_NAME).is_file():
            return [WEIGHTS_NAME]
        _refuse_pickles(folder)
        raise UserError(f"{folder} holds no {WEIGHTS_NAME}")
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(n, str) for n in places.values()):
        raise UserError(
            f"{index}: weight_map does not name a file for each tensor",
            found=type(places).__name__,
        )
    names = sorted(set(places.values()))
    escaping = [name for name in names if Path(name).name != name]
    if escaping:
        raise UserError(f"{index} names a file outside its folder: {escaping[0]}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder / missing[0]} is missing, though the index names it",
            found=f"{len(names) - len(missing)} of {len(names)} files",
            do="get the missing files from where the model was published",
        )
    return names


def pickled_names(folder: Path) -> list[str]:
    """Return the names of the files with pickled weights."""
    return sorted(path.name for path in folder.glob("pytorch_model*.bin"))


def _refuse_pickles(folder: Path) -> None:
    pickles = pickled_names(folder)
    if pickles:
        raise UserError(
            f"{folder} holds pickled weights only ({pickles[0]}); reading them could run code",
            do=f"convert them on the way: feldspar import {folder} --out FOLDER --convert-pickles",
        )


def require_names(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise UserError unless ``state`` has exactly these names and shapes, all of floats.

    Lazy tensors are not read.
    """
    missing = [name for name in shapes if name not in state]
    unknown = [name for name in state if name not in shapes]
    if missing or unknown:
        raise UserError(
            "the weights do not fit the configuration",
            found=f"missing {missing[:3]}, unknown {unknown[:3]}",
        )
    for name, shape in shapes.items():
        require_header(name, header_of(state, name), shape)


def require_header(name: str, header: TensorHeader, shape: tuple[int, ...]) -> None:
    """Raise UserError unless a tensor has this shape and holds floating-point numbers."""
    if header.shape != shape:
        raise UserError(
            f"{name} has another shape than the configuration says",
            found=header.shape,
            allowed=str(shape),
        )
    if header.dtype not in FLOATS:
        raise UserError(f"{name} does not hold floating-point numbers", found=header.dtype)


def require_finite(name: str, tensor: Tensor) -> None:
    """Raise UserError where a tensor has a NaN or an infinity."""
    pieces = tensor.reshape(-1).split(PIECE_ENTRIES)  # isfinite needs several times their memory
    bad = sum(int((~torch.isfinite(piece)).sum()) for piece in pieces)
    if bad:
        raise UserError(
            f"{name} holds numbers that are not finite",
            found=f"{bad:,} of {tensor.numel():,}",
            do="get the weights again from where they were published",
        )
