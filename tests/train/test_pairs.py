"""Fine-tuning on pairs with a soft prompt: resuming, plain fine-tuning, what may not change."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.recipe import load_recipe
from feldspar.train import load_run, train
from feldspar.train.pairs import open_pairs
from feldspar.train.run import TrainingRun
from tests.train.conftest import losses_of, metrics_of

TEMPLATE = (
    "{source: 'question: {question}\\n', target: 'it is {labels}.', "
    "labels: {field: answer, values: ['yes', 'no', maybe]}}"
)
WORDS = ("one", "two", "three", "four", "five", "six", "seven")
PAIRS = """\
  - {name: tune, length: 5 epochs, context_length: 64, batch: {sequences: 2}, sparsity: dense,
      optimizer_state: fresh, optimizer: {betas: [0.9, 0.98], clip_norm: none},
      learning_rate: [{from: 1e-5, to: 1e-3, over: 2 steps}, {shape: inverse_sqrt, over: rest}],
      weight_decay: 0.01, SOFT loss: {on: target},
      data: {type: pairs, path: pairs.jsonl, template: TEMPLATE}}
"""
SOFT = "soft_prompt: {length: 3, initialisation: vocabulary},"
SPARSE = "phases.0.sparsity={type: static, sparsity: 0.5}"
SHORT = [
    "phases.0.length=3 steps",
    "phases.1.length=2 steps",
    "checkpoints.every=2 steps",
    "checkpoints.keep.last=99",
    "evaluation.every=100% of run",
]


def write_pairs(path: Path, count: int = 20) -> None:
    """Questions whose answer depends on their number."""
    answers = ("yes", "no", "maybe")
    records = [
        {"question": " ".join(WORDS[: 1 + n % 7]) + f" {n}", "answer": answers[n % 3]}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def paired_recipe(recipe_file: Path) -> Path:
    """The tiny recipe with a third phase, on pairs that lie beside it."""
    write_pairs(recipe_file.parent / "pairs.jsonl")
    text = recipe_file.read_text().replace(
        "checkpoints:", PAIRS.replace("SOFT", SOFT).replace("TEMPLATE", TEMPLATE) + "checkpoints:"
    )
    text = text.replace("max_sequence_length: 32", "max_sequence_length: 64")
    recipe_file.write_text(text)
    return recipe_file


def test_resumed_at_any_checkpoint_it_trains_the_same(paired_recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(str(paired_recipe), [*SHORT, SPARSE])
    whole = tmp_path / "whole"
    train(loaded, whole)
    expected = losses_of(whole)
    weights = dict(load_run(whole).decoder.named_parameters())
    assert [record["phase"] for record in metrics_of(whole)][5:] == ["tune"] * (len(expected) - 5)
    names = sorted(folder.name for folder in (whole / "checkpoints").iterdir())
    for last in names[1:-1]:
        out = tmp_path / f"from-{last}"
        shutil.copytree(whole, out)
        for later in names[names.index(last) + 1 :]:
            shutil.rmtree(out / "checkpoints" / later)
        train(loaded, out)
        assert losses_of(out) == expected
        again = load_run(out).decoder.named_parameters()
        assert all(torch.equal(weights[name], parameter) for name, parameter in again)
