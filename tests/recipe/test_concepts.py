"""Words of the field lead to the keys of recipes."""

import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.concepts import CONCEPTS, SYNONYMS
from feldspar.recipe.explain import explain
from feldspar.recipe.keys import all_keys
from feldspar.recipe.root import Recipe


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("wsd", "schedule.learning_rate: "),
        ("warmup", "schedule.learning_rate: "),
        ("Warm-up", "schedule.learning_rate: "),
        ("parquet", "corpus.sources.NAME.reader.type: parquet: "),
        ("muon", "optimizer.type: muon: "),
        ("alibi", "model.positions.type: alibi: "),
        ("swiglu", "model.feed_forward: "),
        ("dropout", "model.dropout: "),
        ("batch", "phases.N.batch: "),
        ("bf16", "runtime.precision: "),
    ],
)
def test_a_word_leads_first_to_its_key(word: str, key: str) -> None:
    lines = explain(word)
    keys = [line for line in lines if not line.startswith(f"{word}: ")]
    assert keys[0].startswith(key)
    assert lines[-1] == f"more on one of them: feldspar config explain {key.split(':')[0]}"


def test_concepts_name_keys_that_exist_and_synonyms_name_concepts() -> None:
    known = {key for key, _ in all_keys(Recipe)}
    assert {key for _, keys in CONCEPTS.values() for key in keys} <= known
    assert set(SYNONYMS.values()) <= set(CONCEPTS) and not set(SYNONYMS) & set(CONCEPTS)


@pytest.mark.parametrize(("word", "near"), [("warmpu", "'warmup'"), ("parquett", "'parquet'")])
def test_an_unknown_word_names_the_nearest(word: str, near: str) -> None:
    with pytest.raises(UserError, match=f"did you mean {near}"):
        explain(word)
    with pytest.raises(UserError, match=r"^zzzz: no such key\n"):
        explain("zzzz")
