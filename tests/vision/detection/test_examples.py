"""Images fitted into squares with their objects: places, mirror images, classes of pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feldspar.vision.detection.batches import packed
from feldspar.vision.detection.coco import CocoSplit, open_coco
from feldspar.vision.detection.examples import (
    IGNORED,
    ObjectExample,
    PixelExample,
    object_example,
    pixel_example,
)
from feldspar.vision.detection.fitting import Fit
from feldspar.vision.detection.measure import confusion, mean_overlap
from tests.vision.detection.scenes import annotated, box, polygon, write

pytest.importorskip("pycocotools")

FILL = torch.tensor([7], dtype=torch.uint8)
WIDE, HIGH = 64, 40


def a_split(folder: Path) -> CocoSplit:
    """One image of 40 x 64 pixels: an object, a smaller one on it, and a crowd."""
    whole, small, crowd = (8, 8, 24, 16), (12, 12, 4, 4), (40, 20, 16, 12)
    told = annotated(
        [
            box(1, *small, category=9, segmentation=polygon(*small)),
            box(1, *whole, category=7, segmentation=polygon(*whole)),
            box(1, *crowd, category=7, iscrowd=1, segmentation=polygon(*crowd)),
        ],
        images=1,
        categories=(7, 9),
    )
    told["images"][0] |= {"height": HIGH, "width": WIDE}
    return open_coco(folder, write(folder, told), 1, "train")


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("side", [32, 64, 128])
def test_boxes_and_masks_stay_together(tmp_path: Path, side: int, mirrored: bool) -> None:
    example = object_example(a_split(tmp_path), 0, side, FILL, True, mirrored)
    scale = side // 32
    assert example.labels.tolist() == [2, 1], "the crowd is not learned"
    assert example.masks is not None
    for mask, own in zip(example.masks, example.boxes, strict=True):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert own.tolist() == [float(value) for value in found]
    left = 6 * scale if not mirrored else side - (6 + 2) * scale
    assert example.boxes[0].tolist() == [left, 6 * scale, left + 2 * scale, 8 * scale]
    shown = side * HIGH // WIDE
    assert (example.pixels[:, shown:] == 7).all(), "what is below the image"
    assert (example.pixels[:, :shown] == 40).all()


def test_each_pixel_has_the_class_of_the_smallest_object(tmp_path: Path) -> None:
    example = pixel_example(a_split(tmp_path), 0, WIDE, FILL)
    classes = example.classes
    expected = torch.zeros(WIDE, WIDE, dtype=torch.int64)
    expected[8:24, 8:32] = 1
    expected[12:16, 12:16] = 2
    expected[20:32, 40:56] = IGNORED
    expected[HIGH:] = IGNORED
    assert torch.equal(classes, expected)
    mirrored = pixel_example(a_split(tmp_path), 0, WIDE, FILL, mirrored=True)
    assert torch.equal(mirrored.classes, expected.flip(1))


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([32, 96]), st.integers(0, 10**6))
def test_a_box_goes_to_the_square_and_back(height: int, width: int, side: int, seed: int) -> None:
    fit, chance = Fit(height, width, side), np.random.default_rng(seed)
    corners = np.sort(chance.uniform(0, 1, size=(5, 2, 2)), axis=1) * [width, height]
    boxes = torch.tensor(corners.reshape(5, 4), dtype=torch.float32)
    inner = boxes * fit.factors
    high, wide = fit.inner
    # Two roundings of float32 at numbers of this size.
    assert inner[:, 2].max() <= wide * (1 + 1e-6) and inner[:, 3].max() <= high * (1 + 1e-6)
    torch.testing.assert_close(fit.boxes_back(inner), boxes, rtol=1e-6, atol=1e-4)
    assert max(fit.inner) == side and min(fit.inner) >= 1


def test_masks_come_back_to_the_image() -> None:
    fit = Fit(30, 60, 60)
    masks = torch.rand(2, 60, 60)
    assert torch.equal(fit.masks_back(masks), masks[:, :30]), "the size is the same"
    assert Fit(60, 120, 60).masks_back(masks).shape == (2, 60, 120)
    assert fit.masks_back(masks[:0]).shape == (0, 30, 60)


def test_batches_hold_images_with_different_numbers_of_objects() -> None:
    def example(count: int) -> ObjectExample:
        return ObjectExample(
            torch.zeros(1, 4, 4, dtype=torch.uint8),
            torch.ones(count, 4),
            torch.full((count,), 3),
            torch.ones(count, 4, 4, dtype=torch.uint8),
        )

    pixels, boxes, labels, masks = packed([example(2), example(0)])
    assert pixels.shape == (2, 1, 4, 4) and boxes.shape == (2, 2, 4)
    assert labels.tolist() == [[3, 3], [0, 0]] and masks.sum((2, 3)).tolist() == [[16, 16], [0, 0]]
    assert packed([example(0)])[1].shape == (1, 0, 4)
    pixel = PixelExample(torch.zeros(1, 4, 4, dtype=torch.uint8), torch.ones(4, 4))
    assert [tuple(tensor.shape) for tensor in packed([pixel])] == [(1, 1, 4, 4), (1, 4, 4)]


def test_mean_overlap_against_counting_one_by_one() -> None:
    chance = np.random.default_rng(0)
    truth, found = chance.integers(0, 4, size=(2, 5, 6, 6))
    truth[0, :2] = IGNORED
    truth[truth == 3] = 1
    found[found == 3] = 0
    overlaps = []
    for number in range(3):
        own = (truth == number) & (truth != IGNORED)
        theirs = (found == number) & (truth != IGNORED)
        overlaps.append((own & theirs).sum() / (own | theirs).sum())
    counts = confusion(torch.from_numpy(truth), torch.from_numpy(found), 4)
    assert counts.sum() == (truth != IGNORED).sum()
    assert mean_overlap(counts) == pytest.approx(np.mean(overlaps), rel=1e-6)
    assert mean_overlap(torch.zeros(3, 3)) == 0.0
