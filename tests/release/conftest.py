"""Small runs of each class that a model may be exported as."""

from pathlib import Path

import pytest

from feldspar.recipe.load import load_recipe
from feldspar.release.release_run import release_run
from feldspar.train.run import train
from tests.train.conftest import RECIPE, shards_folder

__all__ = ["shards_folder"]

CLASSES = {
    "GPT2LMHeadModel": [],
    "LlamaForCausalLM": ["model.positions=rotary", "model.feed_forward=swiglu"],
    "FeldsparForCausalLM": ["model.positions=alibi"],
}
"""The settings that lead to each class; all else is default."""
SHORT = ["phases.0.length=2 steps", "phases.1.length=1 steps", "evaluation.every=100% of run"]


@pytest.fixture(scope="session")
def runs(shards_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of three steps for each class."""
    root = tmp_path_factory.mktemp("runs")
    file = root / "tiny.yaml"
    file.write_text(
        RECIPE.format(shards=shards_folder)
        + 'description: "Two\\n# sources | <b>bold</b> [x](y)"\n'
    )
    for name, changes in CLASSES.items():
        train(load_recipe(str(file), [*SHORT, *changes]), root / name)
    return {name: root / name for name in CLASSES}


LONGER = ["phases.0.length=8 steps", "phases.1.length=6 steps", "evaluation.every=4 steps"]
LONGER += ["checkpoints={every: 4 steps, keep: {every: '1 tokens'}}", "model.positions=rotary"]


@pytest.fixture(scope="session")
def long_run(shards_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 14 steps in two phases, which kept all four checkpoints."""
    root = tmp_path_factory.mktemp("long")
    file = root / "tiny.yaml"
    file.write_text(RECIPE.format(shards=shards_folder))
    train(load_recipe(str(file), [*LONGER, "model.feed_forward=swiglu"]), root / "run")
    return root / "run"


@pytest.fixture(scope="session")
def open_release(long_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release of the longer run; tests that change it copy it first."""
    return release_run(long_run, tmp_path_factory.mktemp("open") / "release")
