"""The two files of an exported network: how each is written, run and recognised."""

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from feldspar.core.errors import missing_extra

DESCRIPTION = "feldspar.json"
"""The name in the file under which its images, outputs and classes are described."""


@dataclass(frozen=True)
class FileFormat:
    """A format: ``write(program, path, output names, description)``, ``run(path, images)``, and
    ``made(path)``, true for a file that ``write`` made."""

    write: Callable[[ExportedProgram, Path, Sequence[str], dict[str, Any]], None]
    run: Callable[[Path, Tensor], list[Tensor]]
    made: Callable[[Path], bool]


def _write_onnx(
    program: ExportedProgram, path: Path, outputs: Sequence[str], description: dict[str, Any]
) -> None:
    try:
        import onnxruntime  # noqa: F401 - before minutes of work, which the check needs
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing_extra(error.name or "onnx", "onnx") from error
    written = torch.onnx.export(
        program,
        input_names=["images"],
        output_names=list(outputs),
        dynamic_shapes=({0: "batch"},),
        dynamo=True,
        verbose=False,
    )
    assert written is not None
    written.model.metadata_props[DESCRIPTION] = json.dumps(description)
    written.save(path)


def _run_onnx(path: Path, images: Tensor) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(value) for value in session.run(None, {"images": images.numpy()})]


def _made_onnx(path: Path) -> bool:
    return path.is_file() and DESCRIPTION.encode() in path.read_bytes()


def _write_program(
    program: ExportedProgram, path: Path, outputs: Sequence[str], description: dict[str, Any]
) -> None:
    torch.export.save(program, path, extra_files={DESCRIPTION: json.dumps(description)})


def _run_program(path: Path, images: Tensor) -> list[Tensor]:
    outputs = torch.export.load(path).module()(images)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _made_program(path: Path) -> bool:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(f"/{DESCRIPTION}") for name in archive.namelist())


FORMATS = {
    "onnx": FileFormat(_write_onnx, _run_onnx, _made_onnx),
    "pt2": FileFormat(_write_program, _run_program, _made_program),
}
