"""A finished sparse run, and what is asked of one."""

import shutil
from pathlib import Path

import pytest
from torch import Tensor

from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.sparsity.masks import Masks
from feldspar.train.run import train
from tests.train.conftest import RECIPE, losses_of

BASE = (
    "parametrization.type=supar",
    "phases.0.length=8 steps",
    "phases.1.length=4 steps",
    "evaluation.every=100% of run",
)


SPARSE = "phases.0.sparsity={type: static, sparsity: 0.75}"


DENSE_LATER = ("phases.1.sparsity=dense", "phases.1.optimizer_state=fresh")


KEEP_ALL = "checkpoints.keep.last=20"


SWITCH = 8
"""Steps of the first phase; every step has 128 tokens, every fourth writes a checkpoint."""


def recipe_of(path: Path, *overrides: str) -> Recipe:
    return load_recipe(str(path), [*BASE, *overrides]).recipe


def run(path: Path, out: Path, *overrides: str) -> list[float]:
    train(load_recipe(str(path), [*BASE, *overrides]), out)
    return losses_of(out)


@pytest.fixture(scope="session")
def sparse_run(shards_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sparse run with all of its checkpoints; to be copied before it is touched."""
    root = tmp_path_factory.mktemp("sparse")
    path = root / "tiny.yaml"
    path.write_text(RECIPE.format(shards=shards_folder))
    run(path, root / "run", SPARSE, KEEP_ALL)
    return root / "run"


@pytest.fixture
def copy(sparse_run: Path, tmp_path: Path) -> Path:
    """A copy of the sparse run."""
    return Path(shutil.copytree(sparse_run, tmp_path / "copy"))


def drawn(path: Path, *overrides: str) -> Masks:
    recipe = recipe_of(path, *overrides)
    return Masks.draw(recipe.sparsity(0), plan_recipe(recipe).shapes.rows, recipe.seed)


def checkpoint(out: Path, step: int | None = None) -> Checkpoint:
    found = CheckpointStore(out / "checkpoints").all()
    return found[-1] if step is None else next(c for c in found if c.position == 128 * step)


def assert_zeros(tensors: dict[str, Tensor], masks: Masks, prefix: str = "") -> None:
    assert masks.tensors
    for name, mask in masks.tensors.items():
        tensor = tensors[prefix + name]
        assert bool((tensor[~mask] == 0).all()), name
        assert int((tensor != 0).sum()) > 0.9 * int(mask.sum()), name


def forget_newest(out: Path) -> None:
    shutil.rmtree(checkpoint(out).folder)
