"""``feldspar evaluate RUN --infilling``: what the command prints, and what it refuses."""

import json
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.core.files import write_atomically
from feldspar.evaluate.tasks.filled_gaps import evaluate_infilling, infilling_record
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.train.load import load_run, text_model_of
from feldspar.train.run import train
from tests.evaluate.conftest import held_out_texts, write_documents

MARKS = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>")
RECIPE = """
schema_version: 1
name: tiny
shards: {{path: {shards}}}
model: {{n_layers: 1, d_model: 16, n_heads: 2, d_ff: 32, max_sequence_length: 64}}
parametrization: {{type: mup, base_d_model: 16, base_d_ff: 32, learning_rate: 1e-2, init_std: 0.05}}
phases:
  - name: all
    length: 4 steps
    batch: {{sequences: 2}}
    mixture: {{code: {{probability: 1, fill_in_the_middle: {{rate: 0.9, scope: context}}}}}}
runtime: {{trackers: [], threads: 1}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("infilling")
    texts = held_out_texts()
    long = {name: [text * 4 for text in own] for name, own in texts.items()}
    documents = write_documents(
        folder / "documents", {"train": long, "validation": long, "test": texts}
    )
    tokenizer = TrainBpe(type="train_bpe", vocab_size=280, special_tokens=MARKS)
    build_shards(documents, tokenizer, ShardSettings(path=folder / "s"), seed=0, workers=1)
    write_atomically(folder / "tiny.yaml", RECIPE.format(shards=folder / "s"))
    train(load_recipe(str(folder / "tiny.yaml")), folder / "run")
    return folder / "run"


def test_figures_are_those_of_the_function(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(["--quiet", "evaluate", str(run), "--infilling", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shards = ShardSet.open(run.parent / "s")
    expected = infilling_record(evaluate_infilling(text_model_of(load_run(run)), shards, seed=0))
    assert found == json.loads(json.dumps(expected))
    assert set(found["sources"]) == {"code", "prose"} and found["gaps"] > 10
    assert set(found["bits_per_byte"]) == {"prefix first", "suffix first", "prefix alone"}
    assert run_with(["--quiet", "evaluate", str(run), "--infilling", "--limit", "40"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:7] == ["source", "gaps", "bytes", "prefix", "first", "suffix", "first"]
    assert [row.split()[0] for row in rows] == ["code", "prose", "overall"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "x"], "--infilling goes with a run's held-out documents only"),
        (["--baselines"], "--infilling goes with a run's held-out documents only"),
        (["--split", "dev"], "has no dev split"),
    ],
)
def test_refusals(
    run: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(["--quiet", "evaluate", str(run), "--infilling", *options]) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown
