"""Canvases: the same settings give the same pixels, and annotations say what lies on them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from feldspar.core.errors import UserError
from feldspar.recipe.sections.detection import CanvasImages, IdxObjects
from feldspar.vision.detection.canvases import KIND, build_canvases, draw_canvas, read_objects
from feldspar.vision.detection.coco import open_coco
from tests.vision.pictures import some_pictures, write_split

pytest.importorskip("pycocotools")


def stripes_on_canvases(root: Path, folder: str = "canvases", seed: int = 0) -> CanvasImages:
    """Settings of a few canvases with the stripes of the tests."""
    if not (root / "stripes").exists():
        write_split(root / "stripes" / "train", *some_pictures(1, 30))
        write_split(root / "stripes" / "held-out", *some_pictures(2, 12))
    return CanvasImages(
        format="canvases",
        path=root / folder,
        objects=IdxObjects(
            type="idx", train=root / "stripes" / "train", validation=root / "stripes" / "held-out"
        ),
        train_images=6,
        validation_images=3,
        pixels=48,
        object_pixels=(10, 20),
        most_objects=3,
        seed=seed,
    )


def test_the_same_settings_give_the_same_canvases(tmp_path: Path) -> None:
    one, same, other = (
        stripes_on_canvases(tmp_path, name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for settings in (one, same, other):
        build_canvases(settings)
    for name in ("train.json", "validation.json"):
        told = (one.path / name).read_bytes()
        assert told == (same.path / name).read_bytes() != (other.path / name).read_bytes()
    for path in sorted(one.train.iterdir()):
        pixels = np.array(Image.open(path))
        assert (pixels == np.array(Image.open(same.train / path.name))).all()
    split = open_coco(one.train, one.train_annotations, 1, "train")
    assert len(split) == 6 and split.classes == ("0", "1", "2")
    assert all(1 <= len(image.objects) <= 3 for image in split.images)


def test_boxes_and_areas_are_those_of_the_masks(tmp_path: Path) -> None:
    settings = stripes_on_canvases(tmp_path)
    build_canvases(settings)
    split = open_coco(settings.train, settings.train_annotations, 1, "train")
    for index, image in enumerate(split.images):
        pixels = split.read(index)[0].numpy()
        covered = np.zeros(pixels.shape, dtype=int)
        for item in image.objects:
            mask = split.mask(image, item)
            rows, columns = np.nonzero(mask)
            assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert item.area == mask.sum()
            assert pixels[mask > 0].min() >= 64, "objects are brighter than this"
            covered += mask
        assert covered.max() <= 1, "what lies below another object is not annotated"


def test_held_out_canvases_show_other_objects(tmp_path: Path) -> None:
    settings = stripes_on_canvases(tmp_path)
    parts = {split: read_objects(settings, split)[0] for split in ("train", "validation")}
    assert (len(parts["train"]), len(parts["validation"])) == (30, 12)
    canvas, placed = draw_canvas(
        settings, "validation", 0, *read_objects(settings, "validation")[:2]
    )
    again, _ = draw_canvas(settings, "validation", 0, *read_objects(settings, "validation")[:2])
    assert (canvas == again).all() and placed


def test_canvases_are_kept_and_others_are_refused(tmp_path: Path) -> None:
    settings = stripes_on_canvases(tmp_path)
    build_canvases(settings)
    before = (settings.path / "manifest.json").stat().st_mtime_ns
    build_canvases(settings.model_copy(update={"mean": (0.3,)}))
    assert (settings.path / "manifest.json").stat().st_mtime_ns == before
    assert json.loads((settings.path / "manifest.json").read_text())["kind"] == KIND
    with pytest.raises(UserError, match=r"images.path: .* built with other settings") as raised:
        build_canvases(settings.model_copy(update={"seed": 5}))
    assert "delete the folder" in str(raised.value)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"")
    with pytest.raises(UserError, match="not a finished canvases folder"):
        build_canvases(settings.model_copy(update={"path": tmp_path / "mine"}))


def test_the_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    from feldspar.vision.detection.digits import read_digits

    theirs = datasets.load_digits()
    parts = [read_digits(split) for split in ("train", "validation")]
    labels = np.concatenate([part[1] for part in parts])
    pixels = np.concatenate([part[0] for part in parts])
    assert [len(part[1]) for part in parts] == [1437, 360]
    assert (labels == theirs.target).all()
    assert (pixels == np.rint(theirs.images * 255 / 16)).all()
