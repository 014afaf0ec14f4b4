"""Read and write safetensors files tensor by tensor, so that no file lies in memory as a whole.

The format is 8 bytes of length, a JSON header (type, shape and place of each tensor), and the raw
bytes. Files written here are, byte for byte, those of ``safetensors.torch.save_file``. Tensors are
read with plain reads: mapped pages would count as memory of the process.
"""

import json
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import torch
from torch import Tensor

from feldspar.core.errors import RunError
from feldspar.core.files import disk_errors

TYPES = {
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "U32": torch.uint32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types by their names in a file, in the order in which a file holds them."""
NAMES_OF_TYPES = {dtype: name for name, dtype in TYPES.items()}
LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""


@dataclass(frozen=True)
class TensorHeader:
    """A tensor without its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Return the header of a tensor."""
        return cls(tuple(tensor.shape), tensor.dtype)

    @property
    def n_bytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name, each read when it is asked for; every access reads anew."""

    @abstractmethod
    def header(self, name: str) -> TensorHeader:
        """Return shape and type of a tensor without reading its values."""

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a tensor of this name, without reading it."""
        return any(name == own for own in self)


def header_of(tensors: Mapping[str, Tensor], name: str) -> TensorHeader:
    """Return shape and type of a tensor, without reading it where the tensors are lazy."""
    if isinstance(tensors, LazyTensors):
        return tensors.header(name)
    return TensorHeader.of(tensors[name])


class ReplacedTensors(LazyTensors):
    """The tensors of ``state``, of which some are replaced by others in memory."""

    def __init__(self, state: Mapping[str, Tensor], replaced: Mapping[str, Tensor]) -> None:
        self._state, self._replaced = state, dict(replaced)

    def header(self, name: str) -> TensorHeader:
        """Return shape and type of a tensor."""
        return header_of(self._replaced if name in self._replaced else self._state, name)

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor, read where it is not replaced."""
        return self._replaced[name] if name in self._replaced else self._state[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


class TensorFile(LazyTensors):
    """The tensors of one file, in the order of its header.

    Raises RunError for a file that is not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        self._places: dict[str, tuple[TensorHeader, int]] = {}
        with path.open("rb") as file:
            try:
                self._read_header(file)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise RunError(f"{path} is damaged: its header cannot be read ({error})") from error

    def header(self, name: str) -> TensorHeader:
        """Return shape and type of a tensor."""
        return self._places[name][0]

    def __getitem__(self, name: str) -> Tensor:
        """Read a tensor. Raises RunError where the file ends early."""
        header, begin = self._places[name]
        return self._read(name, header.shape, begin)

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Read the rows ``first`` to ``last`` - 1 of a tensor, and nothing else of it."""
        header, begin = self._places[name]
        row = TensorHeader(header.shape[1:], header.dtype)
        return self._read(name, (last - first, *row.shape), begin + first * row.n_bytes)

    def _read(self, name: str, shape: tuple[int, ...], begin: int) -> Tensor:
        tensor = torch.empty(shape, dtype=self._places[name][0].dtype)
        with self.path.open("rb", buffering=0) as file:
            file.seek(begin)
            if not _fill(file, _bytes_of(tensor)):
                raise RunError(f"{self.path} is damaged: it ends inside the tensor {name}")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _read_header(self, file: IO[bytes]) -> None:
        size = self.path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 0 < length <= min(LONGEST_HEADER, size - 8):
            raise ValueError(f"it says {length} bytes in a file of {size}")
        entries: dict[str, Any] = json.loads(file.read(length).decode("utf-8"))
        self.metadata = entries.pop("__metadata__", {})
        for name, entry in entries.items():
            header = TensorHeader(tuple(map(int, entry["shape"])), TYPES[entry["dtype"]])
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end <= size - 8 - length or end - begin != header.n_bytes:
                raise ValueError(f"the place of {name} does not fit its shape and the file")
            self._places[name] = (header, 8 + length + begin)


class TensorFileWriter:
    """A file whose tensors arrive one at a time, in any order; use it in a ``with`` statement.

    Raises SetupError where the system refuses to write.
    """

    def __init__(
        self,
        path: Path,
        headers: Mapping[str, TensorHeader],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self._headers = dict(headers)
        self._missing = set(headers)
        order = {dtype: place for place, dtype in enumerate(TYPES.values())}
        names = sorted(headers, key=lambda name: (order[headers[name].dtype], name))
        # Readers in transformers want the format; the library's own writer puts it first, too.
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"} | dict(metadata or {})}
        self._begins, end = {}, 0
        for name in names:
            header = headers[name]
            self._begins[name], end = end, end + header.n_bytes
            entries[name] = {
                "dtype": NAMES_OF_TYPES[header.dtype],
                "shape": list(header.shape),
                "data_offsets": [self._begins[name], end],
            }
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._start = len(text).to_bytes(8, "little") + text
        self._size = len(self._start) + end
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        with disk_errors(self.path):
            self._file = self.path.open("wb")
            self._file.write(self._start)
            self._file.truncate(self._size)
        return self

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one tensor, which must have the shape and the type that were announced."""
        assert self._file is not None, "used outside of its with statement"
        tensor = tensor.detach().cpu()
        assert TensorHeader.of(tensor) == self._headers[name], f"{name} was announced differently"
        with disk_errors(self.path):
            self._file.seek(len(self._start) + self._begins[name])
            self._file.write(_bytes_of(tensor.contiguous()))
        self._missing.remove(name)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._file is not None:
            with disk_errors(self.path):
                self._file.close()
        assert error is not None or not self._missing, f"not written: {sorted(self._missing)[:3]}"


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors into one file, one after the other."""
    headers = {name: header_of(tensors, name) for name in tensors}
    with TensorFileWriter(path, headers, metadata) as writer:
        for name in tensors:
            writer.write(name, tensors[name])


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor on the CPU."""
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def _fill(file: IO[bytes], view: memoryview) -> bool:
    """Read until ``view`` is full; tell whether the file was long enough."""
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])  # pyrefly: ignore
        if not count:
            return False
        done += count
    return True
