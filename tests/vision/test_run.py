"""Whole runs on images: they learn, resume bit for bit, and do not depend on what is kept."""

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from feldspar.core.errors import NonFiniteError, UserError
from feldspar.core.execution import available_cores
from feldspar.recipe.load import load_vision_recipe
from feldspar.report.run_report import write_run_report
from feldspar.runtime.device import cpu_multiplies_bfloat16
from feldspar.runtime.distributed import Distribution
from feldspar.runtime.run_folder import truncate_records
from feldspar.train.lifecycle import open_run
from feldspar.vision.data import open_images
from feldspar.vision.evaluate import evaluate_run
from feldspar.vision.load import load_vision_run
from feldspar.vision.plan import plan_vision_recipe
from feldspar.vision.run import begin_training, require_same_pixels, train_on_images
from tests.processes import Forked
from tests.train.conftest import Command, losses_of, metrics_of
from tests.vision.pictures import some_pictures, write_folder, write_split

STEPS = 18
"""Six of 12 images at 16 pixels, then two epochs of 96 images in steps of 16 at 24 pixels."""


def train(recipe_file: Path, out: Path, *overrides: str) -> dict[str, float]:
    return train_on_images(load_vision_recipe(str(recipe_file), list(overrides)), out).metrics


def go_back(run: Path, checkpoint: int) -> None:
    """As if the run had been killed after a checkpoint and a few more steps."""
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name) > checkpoint:
            shutil.rmtree(folder)


def test_the_records_of_a_run(run: Path) -> None:
    records = metrics_of(run)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert [record["images"] for record in records[:7]] == [12, 24, 36, 48, 60, 72, 88]
    assert records[-1]["images"] == 72 + 192
    assert not any("tokens" in record for record in records)
    assert {record["phase"] for record in records[6:]} == {"fine"}
    assert records[6]["batch_images"] == 16
    assert records[-1]["learning_rate"] == 0
    measured = [record["step"] for record in records if "validation/top1" in record]
    assert measured == [6, 12, 18]
    assert "validation/top5" not in records[-1], "there are three classes"
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    started = {"event": "started", "images": 0, "step": 0}
    assert "torch" in events[0].pop("software")
    started |= {"train_images": 96, "validation_images": 24, "length": 264}
    assert started.items() <= events[0].items()
    manifest = json.loads(next((run / "checkpoints").glob("*264/manifest.json")).read_text())
    assert manifest["counts"] == {"images": 264, "processes": 1}
    assert load_vision_recipe(str(run)).recipe.name == "stripes"


# Within a phase, at its border, and just before the end.
@pytest.mark.parametrize("checkpoint", [60, 72, 232])
def test_a_run_goes_on_to_the_same_bits(run: Path, recipe_file: Path, checkpoint: int) -> None:
    whole, before = metrics_of(run), weights_of(run)
    go_back(run, checkpoint)
    train(recipe_file, run, "runtime.workers=3")
    again = metrics_of(run)
    for key in ("train/loss", "gradient_norm", "validation/loss", "validation/top1"):
        assert [record.get(key) for record in again] == [record.get(key) for record in whole]
    assert weights_of(run) == before


@pytest.mark.several_cores
@pytest.mark.skipif(available_cores() < 2, reason="needs two cores")
def test_a_choice_of_threads_goes_on_to_the_same_bits(recipe_file: Path, tmp_path: Path) -> None:
    """With batch norm, dropout, stochastic depth and an average, which a rehearsal may not move."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(recipe_file, tmp_path / "run", "runtime.threads=auto")
        events = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
        homes = [event["home"] for event in map(json.loads, events) if "home" in event]
        whole = losses_of(tmp_path / "run"), weights_of(tmp_path / "run")
        go_back(tmp_path / "run", 60)
        train(recipe_file, tmp_path / "run", "runtime.threads=auto")
    finally:
        torch.set_num_threads(before)
    assert len(homes) == 1 and homes[0] in (1, 2)
    assert (losses_of(tmp_path / "run"), weights_of(tmp_path / "run")) == whole


def weights_of(run: Path) -> dict[str, Any]:
    newest = max((run / "checkpoints").iterdir())
    return {path.name: path.read_bytes() for path in sorted(newest.glob("*.safetensors"))}


@pytest.mark.slow
def test_rmsprop_goes_on_to_the_same_bits(recipe_file: Path, tmp_path: Path) -> None:
    given = [
        "optimizer={type: rmsprop}",
        "parametrization.learning_rate=0.01",
        "phases.1.length=5 steps",
    ]
    train(recipe_file, tmp_path / "whole", *given)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    go_back(tmp_path / "cut", 60)
    train(recipe_file, tmp_path / "cut", *given)
    assert losses_of(tmp_path / "cut") == losses_of(tmp_path / "whole")
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")


def test_memories_of_activations_train_bit_for_bit_alike(recipe_file: Path, tmp_path: Path) -> None:
    """On the grid of fixed-point streams; with dropout and stochastic depth."""
    runs = {}
    for memory in ("store", "recompute", "reversible"):
        out = tmp_path / memory
        train(recipe_file, out, "model.fixed_point_bits=14", f"runtime.activation_memory={memory}")
        runs[memory] = (losses_of(out), weights_of(out))
    assert runs["store"] == runs["recompute"] == runs["reversible"]


@pytest.mark.skipif(not cpu_multiplies_bfloat16(), reason="needs instructions for bfloat16")
def test_a_run_in_bfloat16_is_the_same_in_every_memory(recipe_file: Path, tmp_path: Path) -> None:
    """On the grid of fixed-point streams; and near the run in float32."""
    short = ["runtime.precision=bfloat16", "model.fixed_point_bits=14", "phases.1.length=2 steps"]
    runs = {}
    for memory in ("store", "reversible"):
        train(recipe_file, tmp_path / memory, *short, f"runtime.activation_memory={memory}")
        runs[memory] = (losses_of(tmp_path / memory), weights_of(tmp_path / memory))
    assert runs["store"] == runs["reversible"]
    train(recipe_file, tmp_path / "float32", *short[1:])
    losses = losses_of(tmp_path / "float32")
    assert runs["store"][0] != losses
    assert runs["store"][0] == pytest.approx(losses, rel=0.1)


@pytest.mark.slow
def test_a_run_learns_stripes(recipe_file: Path, tmp_path: Path) -> None:
    longer = ["phases.1.length=8 epochs", "augmentation={crop: {type: padded, pixels: 2}}"]
    metrics = train(recipe_file, tmp_path / "run", *longer, "parametrization.learning_rate=0.2")
    assert metrics["validation/top1"] >= 0.9
    losses = losses_of(tmp_path / "run")
    assert sum(losses[-6:]) < 0.75 * sum(losses[:6])


def test_what_is_measured_is_the_average(run: Path, recipe_file: Path, tmp_path: Path) -> None:
    recorded = metrics_of(run)[-1]
    averaged, raw = evaluate_run(run), evaluate_run(run, averaged=False)
    for name, value in averaged.items():
        assert name == "images" or value == recorded[name]
    assert raw["validation/loss"] != averaged["validation/loss"]
    plain = tmp_path / "plain"
    train(recipe_file, plain, "average_weights=null")
    assert evaluate_run(plain)["validation/loss"] == metrics_of(plain)[-1]["validation/loss"]
    assert losses_of(plain) == losses_of(run), "the average changes nothing in training"


def test_a_run_is_evaluated_on_other_images_and_resolutions(run: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "other", *some_pictures(9, 12))
    assert evaluate_run(run, tmp_path / "other", resolution=32)["images"] == 12
    for arguments, message in (
        ({"resolution": 30}, "--resolution: height and width .* multiples of 8"),
        ({"checkpoint": "7"}, "holds no checkpoint at 7"),
        ({"images": tmp_path / "absent"}, "there is no file absent-images-idx3-ubyte"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate_run(run, **arguments)
    with pytest.raises(UserError, match="is not a run folder"):
        evaluate_run(tmp_path)


def test_images_of_other_classes_are_not_measured(recipe_file: Path, tmp_path: Path) -> None:
    for split in ("train", "held-out"):
        write_folder(tmp_path / split, *some_pictures(1, 24))
    places = [f"images.train={tmp_path}/train", f"images.validation={tmp_path}/held-out"]
    given = [*places, "images.format=folder", "phases.0.length=1 steps", "phases.1.length=1 steps"]
    train(recipe_file, tmp_path / "run", *given)
    assert load_vision_run(tmp_path / "run").classes == ("across", "down", "slant")
    (tmp_path / "held-out" / "slant").rename(tmp_path / "held-out" / "along")
    with pytest.raises(UserError, match="only one of them knows 'along'"):
        evaluate_run(tmp_path / "run")


def test_a_checkpoint_in_the_middle_is_read(run: Path) -> None:
    loaded = load_vision_run(run, "152")
    assert loaded.checkpoint.position == 152
    assert not loaded.network.training


def test_the_report_of_a_run_on_images(run: Path, tmp_path: Path) -> None:
    page = write_run_report([run]).read_text()
    assert "18 steps" in page and "First class right" in page
    assert "The first class is right" in page


def test_changes_that_alter_the_past_are_refused(
    run: Path, recipe_file: Path, pictures: Path, tmp_path: Path
) -> None:
    go_back(run, 232)
    for change, message in (
        ("task.label_smoothing=0.2", "task.label_smoothing"),
        ("augmentation.flip=0", "augmentation.flip"),
        ("average_weights.decay=0.5", "average_weights.decay"),
        ("images.mean=[0.1]", "images.mean"),
        ("phases.0.resolution=24", "phases.0.resolution"),
        ("optimizer.momentum=0.8", "optimizer.momentum"),
    ):
        with pytest.raises(UserError, match=f"has changed since the run began: {message}"):
            train(recipe_file, run, change)
    moved = tmp_path / "moved"
    shutil.copytree(pictures, moved)
    train(recipe_file, run, f"images.train={moved}/train", "phases.1.length=3 epochs")
    assert len(metrics_of(run)) == STEPS + 6
    write_split(moved / "train", *some_pictures(7, 96), ending=".gz")
    with pytest.raises(
        UserError, match="the training images are not those that the run was trained on"
    ):
        train(recipe_file, run, f"images.train={moved}/train", "phases.1.length=4 epochs")


def test_a_run_of_a_version_with_other_pixels_is_refused(run: Path, pictures: Path) -> None:
    go_back(run, 232)
    loaded = load_vision_recipe(str(run))
    with open_run(loaded, plan_vision_recipe(loaded.recipe, 96).timeline, run, False) as opened:
        data = open_images(loaded.recipe)
        require_same_pixels(opened.state, data, "here")
        del opened.state["image_transforms"]
        with pytest.raises(UserError, match="an earlier version of feldspar began this run"):
            require_same_pixels(opened.state, data, "here")


def test_a_noise_scale_is_refused_with_its_reason(recipe_file: Path) -> None:
    with pytest.raises(UserError, match=r"noise_scale: .* batch norm mixes the images"):
        load_vision_recipe(str(recipe_file), ["noise_scale={}"])


def test_a_broken_image_stops_the_run_and_nothing_is_lost(
    recipe_file: Path, tmp_path: Path
) -> None:
    for split in ("train", "held-out"):
        write_folder(tmp_path / split, *some_pictures(1, 48))
    broken = tmp_path / "train" / "down" / "001.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    places = [
        f"images.{key}={tmp_path}/{name}"
        for key, name in (("train", "train"), ("validation", "held-out"))
    ]
    given = [*places, "images.format=folder", "phases.1.length=2 steps"]
    with pytest.raises(UserError, match=r"001.png cannot be read as an image"):
        train(recipe_file, tmp_path / "run", *given)
    metrics = tmp_path / "run" / "metrics.jsonl"
    done = metrics.read_text().count("\n") if metrics.exists() else 0
    assert done < 4, "each of the 48 images is read within four steps of 12"
    broken.write_bytes(whole)
    train(recipe_file, tmp_path / "run", *given)
    assert [record["step"] for record in metrics_of(tmp_path / "run")] == list(range(1, 9))


@pytest.mark.parametrize("bits", ["null", "14"])
def test_a_loss_that_is_not_finite_updates_nothing(
    recipe_file: Path, tmp_path: Path, bits: str
) -> None:
    grid = f"model.fixed_point_bits={bits}"
    with pytest.raises(NonFiniteError, match="nothing was updated"):
        train(recipe_file, tmp_path / "run", "images.mean=[1e39]", grid)
    bad = json.loads((tmp_path / "run" / "bad_batches.jsonl").read_text())
    assert bad["images"] == 12 and bad["batch"] == ["coarse:0+12"]


def test_records_are_cut_by_images(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "images": 8}\n{"step": 2, "images": 16}\n')
    truncate_records(path, 8, "images")
    assert path.read_text() == '{"step": 1, "images": 8}\n'


def test_a_phase_may_begin_with_fresh_momentum(run: Path, recipe_file: Path) -> None:
    kept = losses_of(run)
    go_back(run, 60)
    train(recipe_file, run, "phases.1.optimizer_state=fresh")
    fresh = losses_of(run)
    # The first step of the phase is measured before its update.
    assert kept[:7] == fresh[:7]
    assert kept[7:] != fresh[7:]


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_bit_for_bit(
    recipe_file: Path, tmp_path: Path, feldspar: Command
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert feldspar("vision", "train", recipe_file, "--out", whole).returncode == 0
    chance = random.Random(5)
    kills = 0
    for steps in (1, 5, 7, 12, 16):
        process = Forked(["feldspar", "vision", "train", recipe_file, "--out", out])
        metrics = out / "metrics.jsonl"
        while process.poll() is None:
            if metrics.is_file() and metrics.read_bytes().count(b"\n") >= steps:
                break
            time.sleep(0.002)
        time.sleep(chance.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    result = feldspar("vision", "train", recipe_file, "--out", out)
    assert result.returncode == 0, result.stderr
    assert kills >= 3
    assert losses_of(out) == losses_of(whole)
    assert weights_of(out) == weights_of(whole)
    assert not list((out / "checkpoints").glob("*incomplete*"))


@pytest.mark.slow
def test_a_signal_saves_and_the_run_goes_on(
    recipe_file: Path, tmp_path: Path, feldspar: Command
) -> None:
    out = tmp_path / "run"
    longer = "phases.1.length=200 epochs"
    process = Forked(["feldspar", "vision", "train", recipe_file, longer, "--out", out])
    while process.poll() is None and not (out / "metrics.jsonl").is_file():
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    done = metrics_of(out)[-1]["images"]
    assert int(max(folder.name for folder in (out / "checkpoints").iterdir())) == done
    loaded = load_vision_recipe(str(recipe_file), [longer])
    data = open_images(loaded.recipe)
    plan = plan_vision_recipe(loaded.recipe, len(data.train))
    with open_run(loaded, plan.timeline, out, overwrite=False) as run:
        trainer = begin_training(plan, data, run, Distribution("single", torch.device("cpu")))
        trainer.task.batches.close()
    assert trainer.position == done
