"""Images read, changed and gathered into batches: by our threads and by torch's DataLoader.

Both run the same transforms with the same random numbers over the same JPEG files, so that their
pixels must be equal. Processor time shows what an image costs; images a second depend on the other
jobs of the machine. What tiny images take is nearly all Python's time, which threads of one process
spend in turn. Run:

    python benchmarks/image_input.py
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from feldspar.core.json_files import write_json
from feldspar.core.machine import machine
from feldspar.recipe.sections.vision import AugmentationSettings, RandAugment, RandomResizedCrop
from feldspar.vision.folder import open_folder
from feldspar.vision.loader import IMAGES_AT_ONCE, TrainingImages, stacked
from feldspar.vision.read_ahead import ReadAhead

RESULTS = Path(__file__).parent / "results" / "image_input.json"
SIDES = (375, 500)
"""Height and width of usual files, of which parts of 224 pixels are taken."""
CHANGES = AugmentationSettings(
    crop=RandomResizedCrop(type="random_resized"),
    flip=0.5,
    rand_augment=RandAugment(probability=1.0),
    erase=0.2,
)
BATCH = 32


class Positions(Dataset[tuple[Tensor, int]]):
    """The positions of a run as a map-style data set of torch."""

    def __init__(self, images: TrainingImages, count: int, resolution: int) -> None:
        self._images, self._count, self._resolution = images, count, resolution

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._images.read(index, self._resolution)


def main() -> None:
    """Time both, print a line for each, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, float] = {}
        for name, sides, resolution in (("tiny", (16, 16), 16), ("usual", SIDES, 224)):
            write_files(Path(folder) / name / "noise", 64, sides)
            images = TrainingImages(open_folder(Path(folder) / name, 3, "train"), CHANGES, seed=0)
            images.read(0, resolution)
            began = time.thread_time()
            for position in range(64):
                images.read(position, resolution)
            seconds = (time.thread_time() - began) / 64
            found[f"processor milliseconds of a {name} image"] = 1000 * seconds
        sums: set[int] = set()
        for workers in (1, 2):
            for name, read in (("threads", by_threads), ("DataLoader", by_processes)):
                began = time.perf_counter()
                sums.add(read(images, options.images, workers))
                rate = options.images / (time.perf_counter() - began)
                found[f"images a second by {name}, {workers} workers"] = rate
    assert len(sums) == 1, "both give the same pixels"
    for name, value in found.items():
        print(f"{name:<60} {value:10.2f}")
    write_json(RESULTS, {"machine": machine(), "images": options.images, "figures": found})


def write_files(folder: Path, count: int, sides: tuple[int, int]) -> None:
    """Write JPEG files of smooth noise."""
    folder.mkdir(parents=True)
    for number in range(count):
        small = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(small).resize(sides[::-1]).save(folder / f"{number:03d}.jpg", quality=90)


def _sum_of(batches: Callable[[], Tensor], count: int) -> int:
    return sum(int(batches().long().sum()) for _ in range(count // BATCH))


def by_threads(images: TrainingImages, count: int, workers: int) -> int:
    """Read the batches as a run does, one ahead; return the sum of all bytes."""
    loader = ReadAhead(images.read, workers, IMAGES_AT_ONCE)
    starts = iter(range(0, count, BATCH))
    loader.request(range(next(starts), BATCH), 224)

    def take() -> Tensor:
        if (start := next(starts, None)) is not None:
            loader.request(range(start, start + BATCH), 224)
        return stacked(loader.take())[0]

    total = _sum_of(take, count)
    loader.close()
    return total


def by_processes(images: TrainingImages, count: int, workers: int) -> int:
    """Read the batches by torch's worker processes, started for it; return the sum of all bytes."""
    loader = iter(DataLoader(Positions(images, count, 224), BATCH, num_workers=workers))
    return _sum_of(lambda: next(loader)[0], count)


if __name__ == "__main__":
    main()
