"""Write a model of a Hugging Face class as a GGUF file, one tensor after the other."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feldspar.core.errors import UserError, missing_extra
from feldspar.core.files import new_file, require_absent
from feldspar.huggingface.gguf.gguf_architecture import BLOCKS, GgufArchitecture
from feldspar.huggingface.gguf.known_architectures import GGUF_ARCHITECTURES
from feldspar.huggingface.gguf.metadata import metadata_of
from feldspar.huggingface.gguf.opened_gguf import gguf_names, layout_of
from feldspar.huggingface.gguf.rotary_metadata import FREQUENCIES, rotary_frequencies
from feldspar.huggingface.gguf.tokenizer_out import tokenizer_metadata
from feldspar.huggingface.tensor_rules import Layout
from feldspar.runtime.tensor_file import LazyTensors

MAGIC = b"GGUF"
TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}
"""Types of the matrices by their names as options."""
FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}
"""Values of ``general.file_type``."""
ALWAYS_FLOAT32 = ("position_embd.weight",)


def require_writable_gguf(path: Path, overwrite: bool) -> None:
    """Raise UserError where ``path`` exists and, with ``overwrite``, is not a GGUF file."""
    if not overwrite:
        require_absent(path)
    elif path.exists() and (not path.is_file() or not _begins_with_magic(path)):
        raise UserError(f"{path} is not a GGUF file, so it is not replaced")


def _begins_with_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def write_gguf(
    path: Path,
    configuration: Mapping[str, Any],
    tensors: LazyTensors,
    tokenizer_folder: Path | None,
    dtype: str | None,
    name: str,
) -> None:
    """Write a model under ``path``, which appears when it is whole.

    ``configuration`` is the class's ``config.json`` and ``tensors`` are under its names. Vectors
    stay float32; matrices get ``dtype`` (None: the type that most of them have), and float16
    instead of q8_0 where their rows are no multiple of 32. Raises UserError for a class that
    llama.cpp does not know, and for configurations and tokenizers that it has no place for.
    """
    try:
        from gguf import GGUFWriter
    except ImportError as error:
        raise missing_extra("gguf", "gguf") from error
    known = _architecture(configuration)
    wanted = TYPES[dtype or _usual(tensors)]
    metadata = _metadata(configuration, known, tokenizer_folder, wanted, name)
    entries = _entries(configuration, known, tensors, wanted)
    with new_file(path) as temporary:
        writer = GGUFWriter(temporary, known.name)
        for key, value in metadata.items():
            _add(writer, key, value)
        for entry in entries:
            _announce(writer, entry)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry in entries:
            writer.write_tensor_data(_encoded(entry.read(), entry.kind))
        writer.close()


@dataclass(frozen=True)
class _Entry:
    """One tensor of the file, which is read when it is written."""

    name: str
    shape: tuple[int, ...]
    kind: str
    read: Callable[[], Tensor]


def _entries(
    configuration: Mapping[str, Any], known: GgufArchitecture, tensors: LazyTensors, wanted: str
) -> list[_Entry]:
    names = gguf_names(known, list(tensors), configuration[known.keys[BLOCKS]])
    layouts = known.layouts(configuration)
    entries = []
    for name, theirs in names.items():
        layout = layout_of(theirs, layouts)
        empty = torch.empty(tensors.header(name).shape, device="meta")
        shape = tuple(layout.join([empty]).shape)
        read = partial(_joined, layout, tensors, name)
        entries.append(_Entry(theirs, shape, _kind(theirs, shape, wanted), read))
    factors = rotary_frequencies(configuration, known.head_dim(configuration))
    if factors is not None:
        entries.append(_Entry(FREQUENCIES, tuple(factors.shape), "F32", lambda: factors))
    return entries


def _joined(layout: Layout, tensors: LazyTensors, name: str) -> Tensor:
    return layout.join([tensors[name]])


def _usual(tensors: LazyTensors) -> str:
    """Return the type of most matrices."""
    headers = [tensors.header(name) for name in tensors]
    types = [str(h.dtype).removeprefix("torch.") for h in headers if len(h.shape) > 1]
    found = max(types, key=types.count, default="float32")
    return found if found in TYPES else "float32"


def _architecture(configuration: Mapping[str, Any]) -> GgufArchitecture:
    model_type = configuration["model_type"]
    for known in GGUF_ARCHITECTURES.values():
        if known.model_type == model_type:
            return known
    raise UserError(
        "llama.cpp has no class that can express this model",
        found=configuration["architectures"][0],
        allowed=[known.model_type for known in GGUF_ARCHITECTURES.values()],
        do="export with --format hf",
    )


def _metadata(
    configuration: Mapping[str, Any],
    known: GgufArchitecture,
    tokenizer_folder: Path | None,
    kind: str,
    name: str,
) -> dict[str, Any]:
    own = metadata_of(configuration, known) | {"vocab_size": configuration["vocab_size"]}
    tokenizer = {"tokenizer.ggml.model": "none"}
    if tokenizer_folder is not None:
        tokenizer = tokenizer_metadata(tokenizer_folder, configuration["vocab_size"])
    return {
        "general.type": "model",
        "general.name": name,
        "general.file_type": FILE_TYPES[kind],
        "general.quantization_version": 2,
        **{f"{known.name}.{key}": value for key, value in own.items()},
        **tokenizer,
    }


def _kind(name: str, shape: tuple[int, ...], wanted: str) -> str:
    if len(shape) == 1 or name in ALWAYS_FLOAT32:
        return "F32"
    return "F16" if wanted == "Q8_0" and shape[-1] % 32 else wanted


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _announce(writer: Any, entry: _Entry) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    number = GGMLQuantizationType[entry.kind]
    block, block_bytes = GGML_QUANT_SIZES[number]
    # The writer derives the shape from that in bytes, as it does for quantised tensors.
    stored = (*entry.shape[:-1], entry.shape[-1] // block * block_bytes)
    writer.add_tensor_info(entry.name, stored, np.dtype(np.uint8), math.prod(stored), number)


def _encoded(tensor: Tensor, kind: str) -> np.ndarray:
    from gguf import GGMLQuantizationType, quantize

    plain = tensor.detach().to(torch.float32).contiguous().numpy()
    return quantize(plain, GGMLQuantizationType[kind])
