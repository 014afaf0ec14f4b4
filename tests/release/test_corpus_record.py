"""The record of a run's data: origin, licence, counts, and what filters removed, by source."""

import json
import random
from pathlib import Path

import pytest

from feldspar.prepare.build import build_documents, build_tokens
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe
from feldspar.release.corpus_record import corpus_record, licence_text
from feldspar.release.openness import openness
from feldspar.tokens.shards.shard_folder import ShardSet
from tests.tokens.conftest import some_text

RECIPE = """
schema_version: 1
name: mine
seed: 3
corpus:
  path: documents
  sources:
    notes: {reader: {type: jsonl}, path: notes.jsonl, licence: CC0-1.0}
tokenizer: {type: train_bpe, vocab_size: 280}
shards: {path: shards}
model: {n_layers: 1, d_model: 16, n_heads: 1, d_ff: 16, max_sequence_length: 16}
parametrization: {type: sp, learning_rate: 1e-2}
schedule: {learning_rate: [{to: 1, over: rest}]}
phases:
  - {name: main, length: 1 steps, context_length: 16, batch: {sequences: 1}, mixture: natural}
"""


@pytest.fixture
def built(tmp_path: Path) -> tuple[Recipe, str]:
    """A recipe with its documents and shards, and the digest of the shards."""
    chance = random.Random(1)
    texts = ["too short", *(some_text(chance, 90) for _ in range(60))]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    loaded = load_recipe(str(tmp_path / "mine.yaml"))
    build_documents(loaded, True)
    build_tokens(loaded)
    assert loaded.recipe.shards is not None
    return loaded.recipe, ShardSet.open(loaded.recipe.shards.path).digest


def test_documents_are_recorded_with_licence_and_removals(built: tuple[Recipe, str]) -> None:
    recipe, digest = built
    order = {
        "phases": [
            {
                "name": "main",
                "sources": [{"source": "notes", "probability": "1", "epochs": 0.5, "select": None}],
            }
        ]
    }
    record, missing = corpus_record(recipe, digest, order)
    assert missing == []
    notes = record["sources"]["notes"]
    assert notes["licence"] == "CC0-1.0" and notes["documents"] == 60
    assert notes["removed"]["short"]["documents"] == 1
    assert notes["origin"]["path"] == "notes.jsonl", "the folder is nobody else's business"
    assert notes["phases"] == [{"phase": "main", "share": "1", "epochs": 0.5, "select": None}]
    assert record["shards"]["digest"] == digest
    assert any(name.endswith(".tokens") for name in record["shards"]["files"])
    told = openness(
        checkpoints=[],
        left_out=[],
        order_missing=[],
        corpus=record,
        software=[{"feldspar": "1"}],
        steps=2,
        recorded_steps=2,
        has_events=True,
    )
    assert told["level"] == "2 of 4 pillars complete"
    assert "notes: read from local files" in told["pillars"]["data_order"]["missing"][0]


def test_other_shards_than_the_run_read_are_not_described(built: tuple[Recipe, str]) -> None:
    record, missing = corpus_record(built[0], "0" * 64, None)
    assert record["sources"] == {} and "other shards" in missing[0]


def test_the_most_frequent_licence_comes_first() -> None:
    assert licence_text({"a": 1, "b": 2}) == "b, a" and licence_text({}) == "unknown"
