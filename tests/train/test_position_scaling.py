"""The phase key ``position_scaling``: kept by later phases, checkpoints, starts and exports."""

from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.huggingface.import_folder import read_description
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.position_scaling import LinearScaling, NoScaling
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.train.load import load_run
from feldspar.train.run import train
from tests.train.conftest import losses_of

LINEAR = LinearScaling(type="linear", factor=2)
SCALED = "phases.1.position_scaling={type: linear, factor: 2}"
BASE = (
    "model.positions=alibi",
    "phases.0.length=4 steps",
    "phases.1.length=4 steps",
    "checkpoints.every=2 steps",
    "checkpoints.keep.last=9",
    "evaluation.every=100% of run",
)


def run(path: Path, out: Path, *overrides: str) -> list[float]:
    train(load_recipe(str(path), [*BASE, *overrides]), out)
    return losses_of(out)


def test_a_phase_is_scaled_and_what_comes_after_keeps_it(recipe_file: Path, tmp_path: Path) -> None:
    plain, scaled = run(recipe_file, tmp_path / "plain"), run(recipe_file, tmp_path / "run", SCALED)
    assert scaled[:4] == plain[:4] and scaled[4] != plain[4]
    checkpoints = CheckpointStore(tmp_path / "run" / "checkpoints").all()
    before, after = (load_run(tmp_path / "run", str(checkpoints[n].position)) for n in (0, -1))
    assert before.decoder.position_scaling == NoScaling()
    assert after.decoder.position_scaling == LINEAR
    # Resumed in the middle of the scaled phase: bit for bit.
    resumed = tmp_path / "run" / "checkpoints"
    for folder in sorted(resumed.iterdir())[3:]:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    assert run(recipe_file, tmp_path / "run", SCALED) == scaled
    start = "start_from={type: run, path: " + str(tmp_path / "run") + "}"
    run(recipe_file, tmp_path / "next", start)
    assert load_run(tmp_path / "next").decoder.position_scaling == LINEAR
    run(recipe_file, tmp_path / "dropped", start, "phases.0.position_scaling=none")
    assert load_run(tmp_path / "dropped").decoder.position_scaling == NoScaling()
    assert (
        run_with(["--quiet", "export", str(tmp_path / "run"), "--out", str(tmp_path / "hf")]) == 0
    )
    assert read_description(tmp_path / "hf").scaling == LINEAR


def test_a_start_from_a_hugging_face_folder_keeps_its_scaling(
    recipe_file: Path, tmp_path: Path
) -> None:
    run(recipe_file, tmp_path / "run", "phases.0.position_scaling={type: linear, factor: 2}")
    run_with(["--quiet", "export", str(tmp_path / "run"), "--out", str(tmp_path / "hf")])
    start = "start_from={type: huggingface, path: " + str(tmp_path / "hf") + "}"
    # Padding rows are cut off at export, and folded multipliers untie the head.
    changes = ("model.tied_embeddings=false", "model.vocab_size=null", "phases.0.length=1 steps")
    run(recipe_file, tmp_path / "next", start, *changes)
    found = load_run(tmp_path / "next")
    assert found.decoder.position_scaling == LINEAR
    assert found.recipe.phases[0].position_scaling == LINEAR


@pytest.mark.parametrize(
    ("positions", "scaling", "message"),
    [
        ("learned", "{type: linear, factor: 2}", "the model has learned"),
        ("alibi", "{type: yarn, factor: 2, train_length: 16}", "the model has alibi"),
        ("alibi", "{type: linear}", "give either factor or train_length"),
        ("alibi", "{type: linear, factor: 0.5}", "write 2, not 0.5, to reach"),
        ("alibi", "{type: linaer, factor: 2}", "did you mean 'linear'"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_key(
    recipe_file: Path, positions: str, scaling: str, message: str
) -> None:
    overrides = [f"model.positions={positions}", f"phases.1.position_scaling={scaling}"]
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(str(recipe_file), overrides)
    assert "phases.1.position_scaling" in str(caught.value)
