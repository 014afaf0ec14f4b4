"""A flattened recipe is the same recipe, wherever its file lies."""

from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.recipe.flatten import copy_recipe, flat_recipe
from feldspar.recipe.load import load_any_recipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.shipped import shipped_names
from feldspar.recipe.vision_root import VisionRecipe


def options_of(name: str) -> list[list[str]]:
    """No override, and each option of each choice."""
    choices = load_any_recipe(name).recipe.choices
    single = [[f"choose.{key}={option}"] for key in choices for option in choices[key]]
    return [[], *single]


def resolved(recipe: Recipe | VisionRecipe) -> str:
    """All that a recipe says, less the choices that were not made: their paths are as written."""
    return recipe.model_dump_json(exclude={"choices"})


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_recipe_comes_back_as_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = Path("mine.yaml")
    here.write_text(flat_recipe(name, Path.cwd()), encoding="utf-8")
    below = copy_recipe(name, Path("below/mine.yaml"))
    assert "extends:" not in here.read_text(encoding="utf-8")
    options = options_of(name)
    for overrides in options:
        wanted = load_any_recipe(name, overrides).recipe
        assert load_any_recipe(str(here), overrides).recipe == wanted
    for overrides in (options[0], options[-1]):
        wanted = load_any_recipe(name, overrides).recipe
        moved = load_any_recipe(str(below), overrides).recipe
        # A path from another folder says the same place with steps upwards.
        assert resolved(moved).replace(f"{tmp_path}/below/../", f"{tmp_path}/") == resolved(wanted)


PARENT = """\
# What all share.
schema_version: 1
name: parent
# How wide.
model: {n_layers: 1, d_model: 8, n_heads: 1, d_ff: 8, vocab_size: 9, max_sequence_length: 8}
parametrization: {learning_rate: 1e-2}  # tuned
phases:
  - {name: all, length: 1 steps, batch: {sequences: 1}}
"""
CHILD = """\
# Ours.
extends: ../parent.yaml
name: child  # a name
shards: {path: shards}
choices:
  size:
    # As big as it gets.
    big: {model.d_model: 16, shards.path: other}
    small: {}
choose: {size: small}
"""


def test_comments_and_paths_of_a_file_come_along(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "parent.yaml").write_text(PARENT)
    child = tmp_path / "own" / "child.yaml"
    child.write_text(CHILD)
    text = flat_recipe(str(child), tmp_path)
    assert text.startswith("# Ours.\n# What all share.\nschema_version: 1\nname: child  # a name\n")
    assert "# How wide.\nmodel: {n_layers: 1," in text
    assert "# tuned\nparametrization: {learning_rate: 0.01}" in text
    assert "    # As big as it gets.\n    big: {model.d_model: 16, shards.path: own/other}" in text
    assert "shards: {path: own/shards}" in text
    flat = tmp_path / "flat.yaml"
    flat.write_text(text)
    for overrides in options_of(str(child)):
        wanted = load_any_recipe(str(child), overrides).recipe
        assert resolved(load_any_recipe(str(flat), overrides).recipe) == resolved(wanted)


def test_show_into_a_file_and_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_with(["recipe", "show", "btlm/small"]) == 0
    shown = capsys.readouterr().out
    assert run_with(["recipe", "copy", "btlm/small"]) == 0
    assert capsys.readouterr().out == "btlm-small.yaml\n"
    assert Path("btlm-small.yaml").read_text(encoding="utf-8") == shown
    assert run_with(["plan", "btlm-small.yaml"]) == 0
    assert run_with(["recipe", "copy", "btlm/small"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert run_with(["recipe", "copy", "btlm/small", "--overwrite"]) == 0
    assert run_with(["recipe", "copy", "btlm/small", "mine"]) == 2
    assert "ends in .yaml" in capsys.readouterr().err
    assert run_with(["recipe", "copy", "btlm/smal"]) == 2
    assert "did you mean 'btlm/small'" in capsys.readouterr().err
