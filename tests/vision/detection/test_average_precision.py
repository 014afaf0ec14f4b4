"""The twelve numbers of COCO: known values, and those of pycocotools on the same files."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldspar.vision.detection.average_precision import (
    TWELVE,
    Kind,
    average_precision,
    encoded,
    write_results,
)
from feldspar.vision.detection.coco import open_coco
from tests.vision.detection.scenes import SIDE, annotated, box, polygon, write

pytest.importorskip("pycocotools")

TRUTH = annotated([box(1, 0, 0, 40, 40), box(2, 10, 10, 20, 20)])
FOUND = [
    box(1, 0, 0, 40, 31.2, score=0.9),
    box(2, 10, 10, 20, 20, score=0.8),
    box(2, 60, 60, 20, 20, score=0.95),
]
KNOWN = (0.467327, 0.666667, 0.666667, 0.5, 0.6, -1, 0.3, 0.8, 0.8, 1.0, 0.6, -1)
"""Measured with two evaluators."""


def test_known_values(tmp_path: Path) -> None:
    split = open_coco(tmp_path, write(tmp_path, TRUTH), 1, "train")
    numbers = average_precision(split, FOUND, "bbox")
    assert tuple(numbers) == TWELVE
    assert list(numbers.values()) == pytest.approx(KNOWN, abs=5e-7)


def test_perfect_and_empty_results(tmp_path: Path) -> None:
    split = open_coco(tmp_path, write(tmp_path, TRUTH), 1, "train")
    perfect = average_precision(
        split, [own | {"score": 1.0} for own in TRUTH["annotations"]], "bbox"
    )
    empty = average_precision(split, [], "bbox")
    assert perfect["AP"] == perfect["AP50"] == perfect["AR100"] == 1.0
    assert empty["AP"] == empty["AR100"] == 0.0
    assert perfect["AP_large"] == empty["AP_large"] == -1.0, "no object is large"


def test_nothing_to_find_has_no_precision(tmp_path: Path) -> None:
    split = open_coco(tmp_path, write(tmp_path, annotated([])), 1, "train")
    assert set(average_precision(split, [], "bbox").values()) == {-1.0}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_numbers_are_those_of_pycocotools_on_the_files(tmp_path: Path, kind: Kind) -> None:
    """Random objects of three categories, with crowds, areas of their own and images without."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    chance = np.random.default_rng(3)
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for _ in range(60):
        image, category = int(chance.integers(1, 9)), int(chance.choice([3, 5, 8]))
        left, top = chance.uniform(0, 60, size=2).round(1).tolist()
        width, height = chance.uniform(4, 40, size=2).round(1).tolist()
        whole = (left, top, width, height)
        truth.append(
            box(image, *whole, category=category, iscrowd=int(chance.random() < 0.1))
            | {"area": width * height * 0.8, "segmentation": polygon(*whole)}
        )
        for _ in range(int(chance.integers(0, 3))):
            near = (np.array(whole) + chance.uniform(-3, 3, size=4)).clip(1, 60)
            covered = np.zeros((SIDE, SIDE))
            x, y, w, h = near.round().astype(int)
            covered[y : y + h, x : x + w] = 1
            own = box(image, *near.tolist(), category=category, score=float(chance.random()))
            found.append(own | ({"segmentation": encoded(covered)} if kind == "segm" else {}))
    path = write(tmp_path, annotated(truth, images=10, categories=(3, 5, 8)))
    write_results(tmp_path / "results.json", found)
    with redirect_stdout(io.StringIO()):
        told = COCO(str(path))
        reference = COCOeval(told, told.loadRes(str(tmp_path / "results.json")), kind)
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    ours = average_precision(open_coco(tmp_path, path, 1, "train"), found, kind)
    assert list(ours.values()) == reference.stats.tolist()
    assert 0 < ours["AP"] < 1
