"""What keys mean, and the schema for editors."""

import json

import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.explain import explain
from feldspar.recipe.keys import all_keys, known_keys
from feldspar.recipe.load import load_any_recipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.shipped import shipped_names

KEYS = sorted({key for key, _ in all_keys(Recipe)})


def test_every_key_is_explained() -> None:
    for key in KEYS:
        lines = explain(key)
        assert lines[0].startswith(f"{key}: ") and len(lines[0]) > len(key) + 5
        assert all("\n" not in line for line in lines)


def test_indices_and_names_stand_for_any() -> None:
    assert explain("phases.0.length")[0].startswith("phases.N.length: ")
    assert explain("corpus.sources.books.path")[0].startswith("corpus.sources.NAME.path: ")
    assert explain("phases.0") == explain("phases")


def test_sections_list_their_keys_and_types() -> None:
    text = "\n".join(explain("model.positions"))
    for part in (
        "type: learned: ",
        "type: alibi: ",
        "positions.base: ",
        "positions.max_exponent: ",
    ):
        assert part in text
    assert '  default: {"type": "learned"}' in text
    assert any("NAME.reader" in line for line in explain("corpus.sources"))
    assert "  default: 10% of run" in explain("checkpoints.every")


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"did you mean 'model.d_model'"):
        explain("model.d_modle")


def test_keys_of_a_place() -> None:
    tree = {"model": {"positions": {"type": "alibi"}}}
    place = ("model", "positions")
    assert set(known_keys(Recipe, place, tree)) == {
        "type",
        "max_exponent",
        "slope_multiplier",
        "rounded",
    }
    assert "from" in set(known_keys(Recipe, ("schedule", "learning_rate", "segments", 0), {}))
    assert list(known_keys(Recipe, ("nothing", "here"), {})) == []


def test_the_schema_describes_every_key() -> None:
    schema = Recipe.model_json_schema(by_alias=True)
    assert json.loads(json.dumps(schema)) == schema
    assert set(schema["properties"]) == {key for key in KEYS if "." not in key}
    assert schema["additionalProperties"] is False
    for name, definition in schema["$defs"].items():
        for key, value in definition.get("properties", {}).items():
            assert key == "type" or value.get("description"), f"{name}.{key}"


@pytest.mark.parametrize("name", shipped_names())
def test_every_key_of_a_shipped_recipe_is_in_the_schema(name: str) -> None:
    loaded = load_any_recipe(name)
    properties = type(loaded.recipe).model_json_schema(by_alias=True)["properties"]
    assert set(loaded.tree) <= set(properties)
