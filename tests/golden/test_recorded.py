"""Plans, data and names of tensors are those that were recorded before.

Losses and weights differ between processors: ``scripts/same_behaviour.py`` compares them.
``python -m tests.golden`` writes the recorded values anew.
"""

from pathlib import Path

import pytest

from tests.golden.measure import build_data, data, plan, recipe_names, recorded, tensors


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents and shards of made texts."""
    folder = tmp_path_factory.mktemp("golden")
    build_data(folder)
    return folder


def test_every_recipe_is_recorded() -> None:
    assert recipe_names() == list(recorded("plans"))


@pytest.mark.parametrize("recipe", recorded("plans"))
def test_numbers_of_a_plan(recipe: str, tmp_path: Path) -> None:
    assert plan(recipe, tmp_path) == recorded("plans")[recipe]


def test_rows_vocabulary_and_shards(built: Path) -> None:
    assert data(built) == recorded("data")


def test_names_types_and_shapes_of_tensors(built: Path) -> None:
    assert tensors(built) == recorded("tensors")
