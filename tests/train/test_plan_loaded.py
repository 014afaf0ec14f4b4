"""A plan before any data exist."""

from pathlib import Path

import pytest

from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.tokens import END_OF_DOCUMENT
from feldspar.tokens.tokenizer.bpe import train_bpe
from feldspar.train.data import plan_loaded
from tests.made_text import document_of_its_own

RECIPE = """
schema_version: 1
name: planned
corpus: {path: documents, sources: {own: {reader: text, path: texts, tokens: 10000}}}
tokenizer: {type: huggingface, path: tokenizer}
shards: {path: shards}
model: {n_layers: 1, d_model: 16, n_heads: 1, d_ff: 32, max_sequence_length: 16}
parametrization: {type: sp, learning_rate: 1e-3}
phases: [{name: all, length: 4 steps, batch: {sequences: 1}}]
"""


def test_a_tokenizer_that_lies_ready_gives_the_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = train_bpe([document_of_its_own(1, 4000)], 300, (END_OF_DOCUMENT,))
    tokenizer.save(tmp_path / "tokenizer")
    path = tmp_path / "planned.yaml"
    path.write_text(RECIPE)
    assert plan_loaded(load_recipe(str(path))).recipe.model.vocab_size == 300
