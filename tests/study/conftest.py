"""The tiny recipe of the training tests, one of the vision tests, and the real command."""

from pathlib import Path

import pytest

from tests.train.conftest import feldspar, recipe_file, shards_folder
from tests.vision.conftest import RECIPE
from tests.vision.pictures import some_pictures, write_split

__all__ = ["feldspar", "recipe_file", "shards_folder"]


@pytest.fixture
def vision_recipe(tmp_path: Path) -> Path:
    """A tiny recipe of a vision model, and its images beside it."""
    images = tmp_path / "pictures"
    write_split(images / "train", *some_pictures(1, 96), ending=".gz")
    write_split(images / "held-out", *some_pictures(2, 24))
    path = tmp_path / "stripes.yaml"
    path.write_text(RECIPE.format(data=images))
    return path
