"""A tiny run that the front door built and trained, and folders made from it."""

import json
from pathlib import Path

import pytest

import feldspar
from tests.made_text import documents

RECIPE = """\
schema_version: 1
name: tiny
corpus:
  path: documents
  sources: {notes: {reader: jsonl, path: notes.jsonl}}
  split: {validation: 0.1, test: 0.1}
tokenizer: {type: train_bpe, vocab_size: 300}
shards: {path: shards}
model:
  {n_layers: 1, d_model: 16, n_heads: 2, d_ff: 32, vocab_size: 320, max_sequence_length: 64}
parametrization: {type: mup, base_d_model: 16, base_d_ff: 32, learning_rate: 1e-2, init_std: 0.05}
phases: [{name: all, length: 4 steps, batch: {sequences: 4}}]
evaluation: {every: 100% of run, validation_sequences: 4}
runtime: {trackers: [], threads: 1, device: cpu}
"""


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of a tiny model with a file of text."""
    folder = tmp_path_factory.mktemp("front-door")
    lines = [json.dumps({"id": str(n), "text": text}) for n, text in enumerate(documents(80, 400))]
    (folder / "notes.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    return folder / "tiny.yaml"


@pytest.fixture(scope="session")
def run(recipe: Path) -> Path:
    """The recipe's run, all of its data built on the way."""
    result = feldspar.train(recipe, recipe.parent / "run")
    assert result.steps == 4 and result.position == 4 * 4 * 64
    return result.folder


@pytest.fixture(scope="session")
def exported(run: Path) -> Path:
    """The run exported for transformers."""
    folder = run.parent / "exported"
    feldspar.export(run, folder)
    return folder
