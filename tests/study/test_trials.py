"""Trials: run folders side by side, read back when done, continued when not."""

import math
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.study.trials import Trial, run_trials
from tests.train.conftest import metrics_of

FIRST = Trial("first", ("parametrization.learning_rate=1e-2",))
SECOND = Trial("second", ("parametrization.learning_rate=2e-3",))


def test_processes_give_what_one_process_gives(recipe_file: Path, tmp_path: Path) -> None:
    trials = [FIRST, SECOND]
    alone = run_trials(str(recipe_file), trials, tmp_path / "alone")
    together = run_trials(str(recipe_file), trials, tmp_path / "together", workers=2)
    assert [item.score for item in alone] == [item.score for item in together]
    assert [item.trial for item in alone] == trials
    losses = [step["train/loss"] for step in metrics_of(alone[0].folder)]
    assert alone[0].score == pytest.approx(sum(losses[-7:]) / 7)


def test_a_finished_trial_is_read_and_not_run_again(recipe_file: Path, tmp_path: Path) -> None:
    (first,) = run_trials(str(recipe_file), [FIRST], tmp_path)
    events = (first.folder / "events.jsonl").read_bytes()
    (again,) = run_trials(str(recipe_file), [FIRST], tmp_path, score="validation/loss")
    assert (first.folder / "events.jsonl").read_bytes() == events
    assert again.score == first.metrics["validation/loss"]


def test_a_trial_under_another_name_of_its_folder_is_refused(
    recipe_file: Path, tmp_path: Path
) -> None:
    run_trials(str(recipe_file), [FIRST], tmp_path)
    with pytest.raises(UserError, match="another recipe or other overrides"):
        run_trials(str(recipe_file), [Trial("first", SECOND.overrides)], tmp_path)


def test_divergence_is_a_result(recipe_file: Path, tmp_path: Path) -> None:
    wild = Trial("wild", ("parametrization.learning_rate=1e30", "optimizer.clip_norm=none"))
    (result,) = run_trials(str(recipe_file), [wild], tmp_path)
    assert result.diverged and result.score == math.inf
    (again,) = run_trials(str(recipe_file), [wild], tmp_path)
    assert again.diverged


def test_what_cannot_be_run_is_refused_before_anything_runs(
    recipe_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="two trials are named first"):
        run_trials(str(recipe_file), [FIRST, FIRST], tmp_path)
    wrong = Trial("wrong", ("model.d_modle=3",))
    with pytest.raises(UserError, match="d_model"):
        run_trials(str(recipe_file), [FIRST, wrong], tmp_path)
    assert not (tmp_path / "first").exists()
    with pytest.raises(UserError, match="unknown metric 'accuracy'"):
        run_trials(str(recipe_file), [FIRST], tmp_path, score="accuracy")


def test_runs_on_images_are_trials_too(vision_recipe: Path, tmp_path: Path) -> None:
    trials = [Trial("slow", ("parametrization.learning_rate=0.01",)), Trial("fast", ())]
    results = run_trials(str(vision_recipe), trials, tmp_path / "out", score="validation/top1")
    assert [result.images for result in results] == [72 + 192] * 2
    assert all(0 <= result.score <= 1 and result.tokens == 0 for result in results)
    assert all(result.seconds > 0 for result in results)
    again = run_trials(str(vision_recipe), trials, tmp_path / "out", score="validation/loss")
    assert [run.score for run in again] == [run.metrics["validation/loss"] for run in results]
    with pytest.raises(UserError, match="unknown metric 'validation/top5'"):
        run_trials(str(vision_recipe), trials, tmp_path / "out", score="validation/top5")
    (vision_recipe.parent / "pictures" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="there is no file train-labels"):
        run_trials(str(vision_recipe), trials, tmp_path / "out")
