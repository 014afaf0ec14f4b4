"""A network as a file that runs without feldspar: ONNX, or a program of ``torch.export``.

The file maps normalised images of one size, in batches of any number, to what the network returns
in eval mode. It gets its name once it has been read back and has returned the same values.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feldspar.core.errors import RunError, UserError
from feldspar.core.files import new_file, require_absent
from feldspar.core.streams import stream_seed
from feldspar.vision.export_formats import FORMATS, FileFormat
from feldspar.vision.feature_network import FeatureNetwork
from feldspar.vision.image_classifier import ImageClassifier
from feldspar.vision.images import channel_statistics
from feldspar.vision.load import load_vision_run
from feldspar.vision.pyramid import ReversiblePyramid
from feldspar.vision.stem import require_divisible

TOLERANCE = 1e-4
"""Difference of an output that is allowed, beside as much of its magnitude."""
TRACED_IMAGES = 2
"""torch.export takes a number of 1 as fixed."""
CHECKED_IMAGES = 3


@dataclass(frozen=True)
class ExportedNetwork:
    """A file that was written."""

    path: Path
    image_shape: tuple[int, int, int]
    """Channels, height and width of the images that it takes."""
    outputs: tuple[str, ...]
    difference: float
    """The largest difference of its outputs to those of the network, on random images."""


def export_run(
    run: Path,
    to: Path,
    file_format: str = "onnx",
    checkpoint: str = "last",
    resolution: int | None = None,
    overwrite: bool = False,
) -> ExportedNetwork:
    """Write the network of a run on images, averaged where the run keeps an average.

    ``resolution`` is that of the last phase by default. The file also holds the names of the
    classes and the statistics that pixels are normalised by. Raises UserError for a network that
    finds objects, and as ``load_vision_run`` and ``export_network``.
    """
    _require_place(to, file_format, overwrite)
    loaded = load_vision_run(run, checkpoint)
    recipe, network = loaded.loaded.recipe, loaded.network
    if not isinstance(network, ReversiblePyramid):
        raise UserError(
            f"{run} holds a network for {recipe.task.type}, and only classifiers are exported",
            do="export a run of the task classification",
        )
    mean, std = channel_statistics(recipe.images, recipe.model.image_channels)
    description = {"classes": list(loaded.classes), "mean": list(mean), "std": list(std)}
    size = resolution or recipe.phases[-1].resolution
    return export_network(network, to, file_format, size, overwrite, description)


def export_network(
    network: ReversiblePyramid,
    to: Path | str,
    file_format: str = "onnx",
    image_size: int | tuple[int, int] | None = None,
    overwrite: bool = False,
    description: dict[str, Any] | None = None,
) -> ExportedNetwork:
    """Write a network as the file ``to``, in float32; ``file_format`` is onnx or pt2.

    ``image_size`` is height and width (one number: both), by default that of a named model. The
    network is not changed. ``description`` is stored in the file. Raises UserError for a size that
    the coarsest stream does not divide and for a place that is in use, RunError where the file
    returns other values than the network, SetupError without the packages of ``feldspar[onnx]``.
    """
    to = Path(to)
    chosen = _require_place(to, file_format, overwrite)
    plain = _plain_copy(network)
    height, width = _size_of(network, image_size)
    require_divisible(network.settings, height, width)
    shape = (network.settings.image_channels, height, width)
    names = _output_names(network)
    told = {"images": ["batch", *shape], "outputs": list(names), **(description or {})}
    with torch.no_grad(), new_file(to, suffix=f".{file_format}") as temporary:
        program = torch.export.export(
            plain,
            (torch.zeros(TRACED_IMAGES, *shape),),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
        chosen.write(program, temporary, names, told)
        generator = torch.Generator().manual_seed(stream_seed(0, "vision.export"))
        images = torch.randn(CHECKED_IMAGES, *shape, generator=generator)
        difference = _difference(chosen.run(temporary, images), plain(images), to)
    return ExportedNetwork(to, shape, names, difference)


def _require_place(to: Path, file_format: str, overwrite: bool) -> FileFormat:
    if file_format not in FORMATS:
        raise UserError(f"--format {file_format} is not known", allowed=FORMATS)
    chosen = FORMATS[file_format]
    if not overwrite:
        require_absent(to)
    elif to.exists() and not chosen.made(to):
        raise UserError(f"{to} is no {file_format} file of feldspar, so it is not replaced")
    return chosen


def _plain_copy(network: ReversiblePyramid) -> ReversiblePyramid:
    """Return a copy whose forward pass is made of ordinary operations only."""
    plain = copy.deepcopy(network).to("cpu", torch.float32).eval()
    plain.memory = "store"
    return plain


def _size_of(
    network: ReversiblePyramid, image_size: int | tuple[int, int] | None
) -> tuple[int, int]:
    if isinstance(image_size, int):
        return image_size, image_size
    if image_size is not None:
        return image_size
    named = isinstance(network, ImageClassifier | FeatureNetwork)
    if not named or "input_size" not in network.pretrained_cfg:
        raise UserError("image_size: height and width of the images are needed")
    return network.pretrained_cfg["input_size"][1:]


def _output_names(network: ReversiblePyramid) -> tuple[str, ...]:
    if isinstance(network, FeatureNetwork):
        return tuple(f"stride_{stride}" for stride in network.feature_info.reduction())
    has_classes = not isinstance(network, ImageClassifier) or network.num_classes > 0
    return ("logits" if has_classes else "features",)


def _difference(found: Sequence[Tensor], wanted: Tensor | Sequence[Tensor], to: Path) -> float:
    """Return the largest difference. Raises RunError for one that rounding does not explain."""
    expected = [wanted] if isinstance(wanted, Tensor) else wanted
    pairs = list(zip(found, expected, strict=True))
    difference = max((ours - theirs).abs().max().item() for ours, theirs in pairs)
    if not all(torch.allclose(*pair, rtol=TOLERANCE, atol=TOLERANCE) for pair in pairs):
        raise RunError(
            f"{to} was not written: the exported program returns other values",
            found=f"a difference of {difference:.3g}",
            allowed=f"{TOLERANCE:g}",
        )
    return difference
