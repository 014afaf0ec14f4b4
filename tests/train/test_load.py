"""Which checkpoint of a run a recipe names: the last, the best, or one by its tokens."""

from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.load import load_recipe
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.train.load import find_checkpoint
from feldspar.train.run import train
from feldspar.train.start import start_checkpoint
from tests.train.conftest import RECIPE

MEASURED = (
    "checkpoints.keep={last: 20, best: validation/loss, best_is: highest}",
    "evaluation.every=8 steps",
    "phases.1.length=4 steps",
)


@pytest.fixture(scope="module")
def measured_run(shards_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that keeps the checkpoint with the highest validation loss, and all others."""
    root = tmp_path_factory.mktemp("best")
    path = root / "tiny.yaml"
    path.write_text(RECIPE.format(shards=shards_folder))
    train(load_recipe(str(path), [*MEASURED]), root / "run")
    return root / "run"


def started(path: Path, run: Path, checkpoint: str) -> list[str]:
    return [str(path), f"start_from={{type: run, path: {run}, checkpoint: {checkpoint}}}"]


def position_of(path: Path, run: Path, checkpoint: str) -> int:
    """The checkpoint with which a recipe that names ``checkpoint`` of ``run`` starts."""
    reference, *overrides = started(path, run, checkpoint)
    found = start_checkpoint(load_recipe(reference, overrides).recipe)
    assert found is not None
    return found.position


def test_the_best_is_that_of_the_runs_own_metric(recipe_file: Path, measured_run: Path) -> None:
    saved = CheckpointStore(measured_run / "checkpoints").all()
    losses = {each.position: each.metrics.get("validation/loss", -1.0) for each in saved}
    worst = max(losses, key=losses.__getitem__)
    assert position_of(recipe_file, measured_run, "best") == worst
    assert worst < position_of(recipe_file, measured_run, "last") == max(losses)
    assert position_of(recipe_file, measured_run, str(worst)) == worst


def test_a_run_that_keeps_no_best_is_told(recipe_file: Path, tmp_path: Path) -> None:
    out, short = tmp_path / "run", ("phases.0.length=4 steps", "phases.1.length=4 steps")
    train(load_recipe(str(recipe_file), [*short]), out)
    with pytest.raises(UserError, match=r"no best checkpoint: its recipe has no checkpoints\.keep"):
        position_of(recipe_file, out, "best")
    other = tmp_path / "other"
    train(load_recipe(str(recipe_file), [*short, "checkpoints.keep.best=no/such"]), other)
    with pytest.raises(UserError, match="none of them has the metric no/such"):
        find_checkpoint(other, "best")


@pytest.mark.parametrize("name", ["first", "4e3 tokens", "'-1'", "1.5", "true"])
def test_other_names_are_refused_when_the_recipe_is_read(recipe_file: Path, name: str) -> None:
    reference, *overrides = started(recipe_file, Path("runs/absent"), name)
    with pytest.raises(UserError, match=r"^start_from\.checkpoint: "):
        load_recipe(reference, overrides)
