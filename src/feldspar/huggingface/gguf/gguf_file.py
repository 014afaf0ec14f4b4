"""Read a GGUF file: its metadata, and its tensors, which are dequantised one at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feldspar.core.errors import UserError, missing_extra

PLAIN = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types of tensors that are stored as they are, and keep their type."""
SPLIT_COUNT = "split.count"
DAMAGED = (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError)
"""Errors that the reader of the package ``gguf`` raises for files that lie about themselves."""


@dataclass(frozen=True)
class GgufFile:
    """An open file; reading a tensor costs memory for that tensor only."""

    path: Path
    metadata: Mapping[str, Any]
    """Values by key, as numbers, texts and lists."""
    _tensors: Mapping[str, Any]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors by name, in PyTorch's order (rows first)."""
        return {
            name: tuple(int(size) for size in reversed(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    @property
    def types(self) -> dict[str, str]:
        """Types of the tensors by name, such as ``F16`` or ``Q4_1``."""
        return {name: tensor.tensor_type.name for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """Return a tensor: of its own type where it is stored plainly, else as float32."""
        from gguf import dequantize

        tensor = self._tensors[name]
        kind = tensor.tensor_type.name
        # The file's pages are read-only, which PyTorch does not accept.
        if kind == "BF16":
            words = np.array(tensor.data).view(np.int16)
            return torch.from_numpy(words).view(torch.bfloat16)
        if kind in PLAIN:
            return torch.from_numpy(np.array(tensor.data))
        return torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type)))

    def require(self, key: str) -> Any:
        """Return the value of a key. Raises UserError where the file lacks it."""
        if key not in self.metadata:
            raise UserError(f"{self.path} lacks the key {key}")
        return self.metadata[key]


def open_gguf(path: Path) -> GgufFile:
    """Open a GGUF file and check that all that its header promises is there.

    Raises UserError for another kind of file, a shortened one, one part of several, and for types
    of tensors that cannot be dequantised; SetupError without the package ``gguf``.
    """
    metadata, tensors = _checked(path)
    if metadata.get(SPLIT_COUNT, 1) not in (0, 1):
        raise UserError(
            f"{path} is one part of {metadata[SPLIT_COUNT]}",
            do="join the parts first: llama-gguf-split --merge FIRST_PART JOINED.gguf",
        )
    unknown = sorted({name for name, tensor in tensors.items() if not _is_readable(tensor)})
    if unknown:
        raise UserError(
            f"{path}: {unknown[0]} is quantised in a way that cannot be read",
            found=tensors[unknown[0]].tensor_type.name,
            do="get the file in another quantisation, such as Q8_0 or F16",
        )
    return GgufFile(path, metadata, tensors)


def _checked(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all metadata, and all tensors by name."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise missing_extra("gguf", "gguf") from error

    class Reader(GGUFReader):
        """The package's reader, which must not read beyond the end of the file."""

        def _get(
            self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None
        ) -> np.ndarray:
            # NumPy refuses a view that is longer than the file; the reader itself shortens it.
            order = self.byte_order if override_order is None else override_order
            kind = np.dtype(dtype).newbyteorder(order)
            return np.ndarray((int(count),), kind, self.data, int(offset))

    try:
        reader = Reader(path)
        if reader.byte_order == "S":
            raise ValueError("the file is in the other byte order")
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        return metadata, {tensor.name: tensor for tensor in reader.tensors}
    except DAMAGED as error:
        size = path.stat().st_size
        raise UserError(
            f"{path} is damaged, shortened, or not a GGUF file",
            found=f"{size:,} bytes; {type(error).__name__}: {error}",
            do="get the file again from where it was published",
        ) from error


def _is_readable(tensor: Any) -> bool:
    """Tell whether one block of the tensor's type can be dequantised."""
    from gguf import GGML_QUANT_SIZES, dequantize

    kind = tensor.tensor_type
    if kind.name in PLAIN:
        return True
    _, block_bytes = GGML_QUANT_SIZES[kind]
    try:
        dequantize(np.zeros((1, block_bytes), np.uint8), kind)
    except NotImplementedError:
        return False
    return True
