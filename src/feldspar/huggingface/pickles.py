"""Convert pickled weights to safetensors, in a process of its own that reads tensors only.

``torch.load`` with ``weights_only`` refuses everything in a pickle but tensors and plain values. A
process of its own keeps even a fault of that loader away from this one's data.
"""

import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.core.json_files import write_json
from feldspar.huggingface.weights import INDEX_NAME, WEIGHTS_NAME, pickled_names
from feldspar.runtime.tensor_file import save_tensors

INDEX_OF_PICKLES = "pytorch_model.bin.index.json"


@contextmanager
def converted(folder: Path, beside: Path) -> Generator[Path]:
    """Yield a folder like ``folder`` whose pickled weights are safetensors; it vanishes afterwards.

    It lies beside ``beside``, which needs the space. A folder without pickled weights is yielded
    itself. Raises UserError where a pickle holds anything but tensors.
    """
    names = pickled_names(folder) if folder.is_dir() else []
    if not names or (folder / WEIGHTS_NAME).is_file() or (folder / INDEX_NAME).is_file():
        yield folder
        return
    beside.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside.parent, prefix=f".{beside.name}-") as made:
        target = Path(made)
        for path in folder.iterdir():
            if path.is_file() and path.name not in (*names, INDEX_OF_PICKLES):
                shutil.copyfile(path, target / path.name)
        command = [sys.executable, "-m", "feldspar.huggingface.pickles", str(folder), made]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise UserError(
                f"{folder}: the pickled weights cannot be converted",
                found=(result.stderr.strip().splitlines() or [f"exit {result.returncode}"])[-1],
                do="get the weights as safetensors from where they were published",
            )
        yield target


def convert(folder: Path, target: Path) -> None:
    """Write the tensors of the pickles in ``folder`` as safetensors into ``target``.

    Raises ValueError that names a file with anything but tensors in it.
    """
    names = pickled_names(folder)
    places: dict[str, str] = {}
    for number, name in enumerate(names, start=1):
        try:
            found = torch.load(folder / name, map_location="cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{name} holds more than tensors, or is damaged: {reason}") from error
        if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
            raise ValueError(f"{name} is no mapping from names to tensors")
        file_name = f"model-{number:05d}-of-{len(names):05d}.safetensors"
        if len(names) == 1:
            file_name = WEIGHTS_NAME
        save_tensors(found, target / file_name)
        places |= dict.fromkeys(found, file_name)
    if len(names) > 1:
        write_json(target / INDEX_NAME, {"weight_map": places}, ascii_only=True)


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except ValueError as error:
        sys.exit(str(error))
