"""A tiny corpus in shards, and a recipe of two phases over it."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.progress import SilentListener, listening
from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
from feldspar.tokens.shards.build_shards import build_shards
from tests.processes import run
from tests.tokens.conftest import some_texts, write_documents

RECIPE = """
schema_version: 1
name: tiny
seed: 3
shards: {{path: {shards}}}
model: {{n_layers: 2, d_model: 32, n_heads: 2, d_ff: 64, vocab_size: 320, max_sequence_length: 32}}
parametrization: {{type: mup, base_d_model: 16, base_d_ff: 32, learning_rate: 1e-2, init_std: 0.05}}
schedule: {{learning_rate: [{{to: 1, over: 10% of run}}, {{to: 0.1, over: rest}}]}}
phases:
  - {{name: short, length: 24 steps, context_length: 16, batch: {{sequences: 8}},
      mixture: {{prose: 0.7, code: 0.3}}, allow_repeat: true}}
  - {{name: long, length: 12 steps, context_length: 32, batch: {{sequences: 4}},
      mixture: {{prose: 0.5, code: 0.5}}, allow_repeat: true, documents: mask,
      optimizer_state: keep}}
checkpoints: {{every: 4 steps}}
evaluation: {{every: 12 steps, validation_sequences: 4}}
runtime: {{trackers: [], threads: 1}}
"""


@pytest.fixture(scope="session")
def shards_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of random words."""
    root = tmp_path_factory.mktemp("train-data")
    documents = write_documents(
        root / "documents",
        {
            "train": {"prose": some_texts(1, 120), "code": some_texts(2, 60)},
            "validation": {"prose": some_texts(3, 20), "code": some_texts(4, 20)},
        },
    )
    settings = ShardSettings(path=root / "shards")
    build_shards(documents, TrainBpe(vocab_size=300), settings, seed=0, workers=1)
    return root / "shards"


@pytest.fixture
def recipe_file(shards_folder: Path, tmp_path: Path) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.format(shards=shards_folder))
    return path


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def feldspar() -> Command:
    """Run the real command in a process of its own."""

    def run_feldspar(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return run(["feldspar", *arguments], **options)

    return run_feldspar


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The records of a run's steps."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def losses_of(run: Path) -> list[float]:
    """The training loss of each step."""
    return [record["train/loss"] for record in metrics_of(run)]


class Listener(SilentListener):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def news() -> Iterator[list[str]]:
    """Everything that was said during the test."""
    listener = Listener()
    with listening(listener):
        yield listener.lines
