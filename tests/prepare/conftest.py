"""A recipe of its own text that nothing was built for yet."""

import json
from pathlib import Path

import pytest

from tests.tokens.conftest import some_texts

RECIPE = """\
schema_version: 1
name: mine
corpus:
  path: documents
  sources: {notes: {reader: jsonl, path: notes.jsonl}}
  clean: {short: 0}
  split: {validation: 0.1, test: 0.1}
tokenizer: {type: train_bpe, vocab_size: 300}
shards: {path: shards}
model: {n_layers: 1, d_model: 16, n_heads: 2, d_ff: 32, max_sequence_length: 16}
parametrization: {learning_rate: 1e-2}
phases: [{name: all, length: 4 steps, batch: {sequences: 4}}]
evaluation: {every: 100% of run, validation_sequences: 4}
runtime: {trackers: [], threads: 1}
"""


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe's file beside its text, in the working directory."""
    monkeypatch.chdir(tmp_path)
    lines = (json.dumps({"text": text}) for text in some_texts(1, 120))
    (tmp_path / "notes.jsonl").write_text("\n".join(lines) + "\n")
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path
