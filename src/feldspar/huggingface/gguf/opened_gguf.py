"""Open a GGUF file as the model of a Hugging Face class: configuration, tensors, tokenizer."""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.huggingface.gguf.gguf_architecture import GgufArchitecture
from feldspar.huggingface.gguf.gguf_file import PLAIN, GgufFile, open_gguf
from feldspar.huggingface.gguf.metadata import architecture_of, configuration_of
from feldspar.huggingface.gguf.rotary_metadata import FREQUENCIES
from feldspar.huggingface.gguf.tokenizer_in import has_tokenizer, write_tokenizer_of
from feldspar.huggingface.tensor_rules import Layout, Same
from feldspar.runtime.tensor_file import LazyTensors, TensorHeader

KINDS = (".weight", ".bias")
BLOCK = re.compile(r"blk\.\d+\.")


def gguf_names(known: GgufArchitecture, names: Sequence[str], n_blocks: int) -> dict[str, str]:
    """Return llama.cpp's names of a class's tensors, from the table that its converter uses.

    Raises UserError for a tensor that llama.cpp's architecture does not have.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    number = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == known.name)
    table = get_tensor_name_map(number, n_blocks)
    found = {}
    for name in names:
        # The table has some classes' names without the name of the whole.
        spellings = (name, name.removeprefix("transformer."))
        theirs = next(filter(None, (table.get_name(each, KINDS) for each in spellings)), None)
        if theirs is None:
            raise UserError(f"llama.cpp's {known.name} has no tensor for {name}")
        found[name] = theirs
    return found


def layout_of(name: str, layouts: Mapping[str, Layout]) -> Layout:
    """Return the layout of the tensor that llama.cpp calls ``name``."""
    return layouts.get(BLOCK.sub("", name).removesuffix(".weight").removesuffix(".bias"), Same())


class GgufTensors(LazyTensors):
    """Tensors of a file under the names, and in the layout, of the Hugging Face class.

    A tensor that the class does not have keeps llama.cpp's name, so that readers refuse it by name.
    """

    def __init__(
        self, file: GgufFile, names: Mapping[str, str], layouts: Mapping[str, Layout]
    ) -> None:
        self._file, self._layouts = file, layouts
        self._shapes, self._types = file.shapes, file.types
        known = {theirs: ours for ours, theirs in names.items()}
        self._names = {known.get(name, name): name for name in self._shapes if name != FREQUENCIES}

    def header(self, name: str) -> TensorHeader:
        """Return shape and type of a tensor without reading its values."""
        stored = self._names[name]
        empty = torch.empty(self._shapes[stored], device="meta")
        (tensor,) = layout_of(stored, self._layouts).split(empty)
        return TensorHeader(tuple(tensor.shape), PLAIN.get(self._types[stored], torch.float32))

    def __getitem__(self, name: str) -> Tensor:
        """Read and dequantise a tensor."""
        stored = self._names[name]
        (tensor,) = layout_of(stored, self._layouts).split(self._file.read(stored))
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class OpenedGguf:
    """A GGUF file, seen as the model of a Hugging Face class."""

    file: GgufFile

    @classmethod
    def open(cls, path: Path) -> "OpenedGguf":
        """Open a file. Raises UserError as ``open_gguf``, and for an unknown architecture."""
        file = open_gguf(path)
        architecture_of(file)
        return cls(file)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The ``config.json`` that the class would have."""
        return configuration_of(self.file)

    @property
    def tokenizer_folder(self) -> Path | None:
        """A folder with the file's tokenizer, which is there as long as this object."""
        return None if self._folder is None else Path(self._folder.name)

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory | None:
        if not has_tokenizer(self.file):
            return None
        folder = tempfile.TemporaryDirectory(prefix="feldspar-tokenizer-")
        write_tokenizer_of(self.file, Path(folder.name))
        return folder

    def tensors(self, names: Sequence[str], n_blocks: int) -> GgufTensors:
        """Return the tensors under the class's ``names``."""
        known = architecture_of(self.file)
        return GgufTensors(
            self.file, gguf_names(known, names, n_blocks), known.layouts(self.configuration)
        )
