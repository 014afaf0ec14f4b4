"""The tiny recipe of the training tests, and the real command."""

from tests.train.conftest import feldspar, recipe_file, shards_folder

__all__ = ["feldspar", "recipe_file", "shards_folder"]
