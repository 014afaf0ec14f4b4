"""COCO's annotation files: what is read, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldspar.core.errors import UserError
from feldspar.core.progress import SilentListener, listening
from feldspar.vision.detection.coco import CocoSplit, open_coco
from tests.vision.detection.scenes import SIDE, annotated, box, polygon, write

pytest.importorskip("pycocotools")


def opened(folder: Path, told: Any, channels: int = 1) -> CocoSplit:
    return open_coco(folder, write(folder, told), channels, "train")


def test_objects_images_and_categories(tmp_path: Path) -> None:
    told = annotated(
        [
            box(2, 10, 20, 30, 40, category=9, iscrowd=1, area=5),
            box(2, -5, 90, 20, 20, category=4),
        ],
        images=3,
        categories=(9, 4),
    )
    split = opened(tmp_path, told, channels=3)
    assert len(split) == 3 and split.category_ids == (4, 9)
    assert split.classes == ("kind 4", "kind 9")
    negative, scene, _ = split.images
    assert negative.objects == (), "an image without objects stays"
    crowd, cut = scene.objects
    assert crowd.crowd and crowd.box == (10, 20, 40, 60) and (crowd.label, crowd.area) == (2, 5)
    assert cut.box == (0, 90, 15, 100), "the part inside of the image is learned"
    assert cut.annotated == (-5, 90, 20, 20), "the whole box is measured"
    assert scene.learned == [cut]
    assert split.read(1).shape == (3, SIDE, SIDE)


def test_masks_of_every_form_are_those_of_pycocotools(tmp_path: Path) -> None:
    from pycocotools import mask as coder
    from pycocotools.coco import COCO

    shape = np.zeros((SIDE, SIDE), dtype=np.uint8, order="F")
    shape[10:30, 40:60] = 1
    shape[15:20, 45:50] = 0
    packed = coder.encode(shape)
    flat = shape.flatten(order="F")
    borders = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *borders, flat.size]).tolist()
    bbox = (40, 10, 20, 20)
    told = annotated(
        [
            box(1, *bbox, segmentation=polygon(*bbox) + polygon(70, 70, 10, 10)),
            box(1, *bbox, segmentation={"size": [SIDE, SIDE], "counts": counts}),
            box(1, *bbox, segmentation={"size": [SIDE, SIDE], "counts": packed["counts"].decode()}),
        ]
    )
    split = opened(tmp_path, told)
    truth = COCO(str(split.annotations))
    image = split.images[0]
    found = [split.mask(image, item) for item in image.objects]
    for number, mask in enumerate(found, start=1):
        assert (mask == truth.annToMask(truth.anns[number])).all()
    assert (found[1] == shape).all() and (found[2] == shape).all()
    assert found[0].sum() == 20 * 20 + 10 * 10


def test_empty_boxes_are_left_out_and_counted(tmp_path: Path) -> None:
    boxes = [(1, 1, 0, 5), (1, 1, 5, -2), (200, 1, 5, 5), (1, 1, 5, 5)]
    lines: list[str] = []

    class Told(SilentListener):
        def say(self, line: str) -> None:
            lines.append(line)

    with listening(Told()):
        split = opened(tmp_path, annotated([box(1, *own) for own in boxes]))
    assert len(split.images[0].objects) == 1
    said = " ".join(lines)
    assert "warning: 2 boxes of" in said and "have a width or height of 0 or less" in said
    assert "warning: 1 boxes of" in said and "lie outside of their image" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [box(1, 1, 1, 5, 5, category=8, id=3)]}, "object 3 .*category_id"),
        ({"annotations": [box(9, 1, 1, 5, 5, id=3)]}, "object 3 .*unknown image_id"),
        ({"annotations": [box(1, 1, 1, 5, id=3)]}, "bbox of the object 3 .*four finite"),
        ({"annotations": [box(1, 1, 1, 5, 1e999, id=3)]}, "bbox of the object 3 .*four finite"),
        ({"annotations": [box(1, 1, 1, 5, 5, id=3)] * 2}, "two entries have the id 3"),
        ({"categories": []}, "has no category"),
        ({"categories": [{"name": "x"}]}, "entry 0 has no number"),
        ({"images": []}, "has no image"),
        ({"images": [{"id": 1, "file_name": "1.png", "height": 9}]}, "no height and width"),
        ({"images": [{"id": 1, "height": 9, "width": 9}]}, "no file_name"),
    ],
)
def test_what_is_wrong_with_annotations_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        opened(tmp_path, annotated([]) | change)


def test_files_that_are_no_annotations_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.json"
    with pytest.raises(UserError, match=r"images.train_annotations: there is no file"):
        open_coco(tmp_path, path, 1, "train")
    for text, message in (("{", "cannot be read as JSON"), ("[]", "lacks the list 'images'")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            open_coco(tmp_path, path, 1, "train")
    with pytest.raises(UserError, match="is no folder"):
        open_coco(tmp_path / "absent", path, 1, "train")


def test_an_image_of_another_size_and_an_object_without_mask_are_refused(tmp_path: Path) -> None:
    told = annotated([box(1, 1, 1, 5, 5)])
    split = opened(tmp_path, told)
    with pytest.raises(UserError, match=r"1.png has no segmentation"):
        split.mask(split.images[0], split.images[0].objects[0])
    told["images"][0]["height"] = 50
    split.annotations.write_text(json.dumps(told))
    again = open_coco(tmp_path, split.annotations, 1, "train")
    with pytest.raises(UserError, match="another size than its annotations say"):
        again.read(0)


def test_the_digest_follows_annotations_and_files(tmp_path: Path) -> None:
    told = annotated([box(1, 1, 1, 5, 5)])
    first = opened(tmp_path, told).digest
    assert opened(tmp_path, told).digest == first
    assert opened(tmp_path, annotated([box(1, 1, 1, 5, 6)])).digest != first
    split = opened(tmp_path, told)
    (tmp_path / "1.png").write_bytes(b"other")
    assert split.digest != first
