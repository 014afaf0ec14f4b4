"""Keys that are found elsewhere: each is refused with the place of its setting."""

import re
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.elsewhere import ELSEWHERE
from feldspar.recipe.explain import explain
from feldspar.recipe.keys import all_keys
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.vision_root import VisionRecipe

KNOWN = {key for key, _ in all_keys(Recipe)}
KNOWN_OF_IMAGES = {key for key, _ in all_keys(VisionRecipe)}


@pytest.mark.parametrize(("key", "place"), ELSEWHERE.items())
def test_a_key_that_is_elsewhere_is_refused_with_its_place(
    small: Path, key: str, place: str
) -> None:
    assert key not in KNOWN
    sections = {"corpus.split": "corpus={sources: {a: {reader: jsonl, path: a.jsonl}}, path: out}"}
    section = key.rpartition(".")[0]
    given = [sections[section]] if section in sections else []
    with pytest.raises(UserError, match=re.escape(f"{key}: unknown key; {place}")):
        load_recipe(str(small), [*given, f"{key}=1"])
    if key not in KNOWN_OF_IMAGES:
        with pytest.raises(UserError, match=re.escape(f"{key}: no such key; {place}")):
            explain(key)


def test_the_places_exist() -> None:
    named = {key for place in ELSEWHERE.values() for key in re.findall(r"\w+(?:\.\w+)+", place)}
    assert len(named) == 4 and named <= KNOWN
