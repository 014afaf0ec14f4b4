"""Images in folders and in MNIST's files: what is read, and what is refused in one line."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from feldspar.core.errors import UserError
from feldspar.core.progress import listening
from feldspar.recipe.load import load_vision_recipe
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.data import open_images
from feldspar.vision.folder import open_folder, read_image
from feldspar.vision.idx import open_idx, read_idx
from tests.core.test_progress import Recorder
from tests.vision.pictures import KINDS, SIDE, some_pictures, write_folder, write_idx, write_split


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Both splits as folders of PNG files."""
    write_folder(tmp_path / "train", *some_pictures(1, 9))
    write_folder(tmp_path / "held-out", *some_pictures(2, 6))
    return tmp_path


def recipe_of(folders: Path, recipe_file: Path, *overrides: str) -> VisionRecipe:
    places = [f"images.train={folders}/train", f"images.validation={folders}/held-out"]
    given = ["images.format=folder", *places, *overrides]
    return load_vision_recipe(str(recipe_file), given).recipe


def test_folders_and_mnists_files_hold_the_same_images(tmp_path: Path, folders: Path) -> None:
    pixels, labels = some_pictures(1, 9)
    write_split(tmp_path / "plain", pixels, labels)
    write_split(tmp_path / "packed", pixels, labels, ".gz")
    by_folder = open_folder(folders / "train", 1, "train")
    by_files = [open_idx(tmp_path / name, 1, "train") for name in ("plain", "packed")]
    assert by_folder.classes == KINDS
    assert [images.classes for images in by_files] == [("0", "1", "2")] * 2
    # A folder lists its classes one after the other.
    order = np.argsort(labels, kind="stable")
    assert by_folder.labels.tolist() == labels[order].tolist()
    assert len(by_folder) == 9
    for place, number in enumerate(order.tolist()):
        expected = torch.from_numpy(pixels[number])[None]
        assert torch.equal(by_folder.read(place), expected)
        for images in by_files:
            assert torch.equal(images.read(number), expected)
            assert images.labels[number] == labels[number]
    in_colour = open_idx(tmp_path / "plain", 3, "train")
    assert torch.equal(in_colour.read(0), torch.from_numpy(pixels[0]).expand(3, SIDE, SIDE))


def test_a_digest_follows_the_images(tmp_path: Path, folders: Path) -> None:
    before = open_folder(folders / "train", 1, "train").digest
    assert open_folder(folders / "train", 3, "train").digest == before
    (folders / "train" / "down" / "more.png").write_bytes(b"")
    assert open_folder(folders / "train", 1, "train").digest != before


RED = (255, 0, 0)
GRAY_OF_RED = 76
"""0.299 of 255."""


@pytest.mark.parametrize(
    ("mode", "colour", "as_colour", "as_gray"),
    [
        ("RGB", RED, RED, GRAY_OF_RED),
        ("L", 90, (90, 90, 90), 90),
        ("1", 1, (255, 255, 255), 255),
        ("CMYK", (0, 255, 255, 0), RED, GRAY_OF_RED),
        ("RGBA", (*RED, 255), RED, GRAY_OF_RED),
        ("RGBA", (*RED, 0), (255, 255, 255), 255),
        ("LA", (90, 0), (255, 255, 255), 255),
        ("P", 0, (0, 0, 0), 0),
    ],
)
def test_every_kind_of_pixel_becomes_gray_or_colour(
    tmp_path: Path, mode: str, colour: object, as_colour: tuple[int, ...], as_gray: int
) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new(mode, (3, 2), colour).save(path)
    for channels, expected in ((3, as_colour), (1, (as_gray,))):
        pixels = read_image(path, channels)
        assert pixels.dtype == torch.uint8
        assert pixels.shape == (channels, 2, 3)
        assert pixels[:, 1, 2].tolist() == list(expected)


def test_a_palette_with_a_transparent_entry_shows_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([*RED, 0, 255, 0])
    image.save(tmp_path / "image.png", transparency=1)
    assert read_image(tmp_path / "image.png", 3).unique().tolist() == [255]


def test_what_is_no_image_of_bytes_is_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(some_pictures(1, 1)[0][0]).save(whole)
    broken = {
        "cut.png": whole.read_bytes()[:200],
        "empty.jpg": b"",
        "text.png": b"no image at all",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} cannot be read as an image") as caught:
            read_image(tmp_path / name, 1)
        assert caught.value.do == "restore the file, or remove it"
    with pytest.raises(UserError, match=r"absent.png cannot be read"):
        read_image(tmp_path / "absent.png", 1)
    Image.fromarray(np.full((2, 2), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match="another kind than 8 bits"):
        read_image(tmp_path / "deep.png", 1)


def test_folders_that_are_no_classes_are_refused(tmp_path: Path, folders: Path) -> None:
    with pytest.raises(UserError, match=r"images.train: .* is no folder"):
        open_folder(tmp_path / "absent", 1, "train")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="holds no folder of a class"):
        open_folder(tmp_path / "bare", 1, "train")
    (folders / "train" / "empty").mkdir()
    (folders / "train" / "empty" / "notes.txt").write_text("none yet")
    with pytest.raises(UserError, match="the class 'empty' holds no image") as caught:
        open_folder(folders / "train", 1, "train")
    assert ".png" in str(caught.value.allowed)


def test_other_files_are_left_out_and_counted(folders: Path) -> None:
    (folders / "train" / "down" / "notes.txt").write_text("not an image")
    (folders / "train" / "down" / ".hidden.png").write_text("not seen")
    listener = Recorder()
    with listening(listener):
        images = open_folder(folders / "train", 1, "train")
    assert len(images) == 9
    assert any("1 entries" in event for event in map(str, listener.events))


def test_splits_have_the_same_classes(folders: Path, recipe_file: Path) -> None:
    assert len(open_images(recipe_of(folders, recipe_file)).train) == 9
    (folders / "held-out" / "across").rename(folders / "held-out" / "along")
    with pytest.raises(UserError, match=r"images.validation: the class 'across' .* is missing"):
        open_images(recipe_of(folders, recipe_file))
    (folders / "train" / "along").mkdir()
    Image.new("L", (4, 4)).save(folders / "train" / "along" / "one.png")
    with pytest.raises(UserError, match=r"model.classes: .* 3 classes apart, images.train holds 4"):
        open_images(recipe_of(folders, recipe_file))
    write_folder(folders / "held-out", *some_pictures(2, 6))
    with pytest.raises(UserError, match=r"images.train holds 4"):
        open_images(recipe_of(folders, recipe_file))
    four = recipe_of(folders, recipe_file, "model.classes=4")
    assert open_images(four).train.classes == ("across", "along", "down", "slant")


def test_a_declared_number_of_images_is_checked(folders: Path, recipe_file: Path) -> None:
    with pytest.raises(UserError, match="declares 10 images, there are 9"):
        open_images(recipe_of(folders, recipe_file, "images.train_images=10"))


def test_damaged_files_of_mnists_kind_are_named(tmp_path: Path) -> None:
    pixels, labels = some_pictures(1, 6)
    prefix = tmp_path / "train"
    with pytest.raises(UserError, match="there is no file train-images-idx3-ubyte or"):
        open_idx(prefix, 1, "train")
    write_split(prefix, pixels, labels[:5])
    with pytest.raises(UserError, match="6 images and 5 labels do not belong together"):
        open_idx(prefix, 1, "train")
    write_split(prefix, pixels, labels + (labels == 2))
    with pytest.raises(UserError, match="the class 2 has no image"):
        open_idx(prefix, 1, "train")
    write_split(prefix, pixels[:0], labels[:0])
    with pytest.raises(UserError, match="holds no image"):
        open_idx(prefix, 1, "train")
    path = tmp_path / "numbers"
    write_idx(path, labels)
    with pytest.raises(UserError, match="no idx file of bytes in 3 dimensions") as caught:
        read_idx(path, 3)
    assert "00000801" in str(caught.value)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="does not hold as much as its header says"):
        read_idx(path, 1)
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(UserError, match=r"packed.gz cannot be read"):
        read_idx(packed, 1)
