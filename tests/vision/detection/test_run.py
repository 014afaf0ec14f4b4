"""Whole runs on images with objects: they resume bit for bit, are measured, and learn."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.recipe.load import load_vision_recipe
from feldspar.vision.data import open_objects
from feldspar.vision.detection.batches import packed
from feldspar.vision.detection.coco import open_coco
from feldspar.vision.detection.detectors import Detector
from feldspar.vision.detection.examples import fill_of, object_example
from feldspar.vision.detection.measure import HeldOut, measure_detector
from feldspar.vision.detection.networks import object_network
from feldspar.vision.evaluate import evaluate_run, measures_of
from feldspar.vision.load import load_vision_run
from feldspar.vision.plan import plan_vision_recipe
from feldspar.vision.run import train_on_images
from feldspar.vision.task import normalisation
from tests.train.conftest import losses_of, metrics_of
from tests.vision.conftest import RECIPE as CLASSIFICATION
from tests.vision.detection.test_canvases import stripes_on_canvases

pytest.importorskip("pycocotools")
pytest.importorskip("torchvision")

TASKS = {
    "mask_rcnn": "{type: detection, head: mask_rcnn, width: 8, head_width: 16, "
    "proposals: [20, 10], sampled_anchors: 16, sampled_regions: 8, anchor_sizes: [10, 16, 20]}",
    "segmentation": "{type: segmentation, width: 8}",
}
RECIPE = """
schema_version: 1
name: canvases
seed: 3
images:
  format: canvases
  path: {root}/canvases
  objects: {{type: idx, train: {root}/stripes/train, validation: {root}/stripes/held-out}}
  train_images: 6
  validation_images: 3
  pixels: 48
  object_pixels: [10, 20]
  most_objects: 3
model: {{channels: [16, 24], neck_channels: [16, 24], head_width: 32, classes: 3, image_channels: 1,
        residual_layers: 1, extra_silos: 0, stochastic_depth: 0.2, fixed_point_bits: 14}}
task: {task}
parametrization: {{learning_rate: 0.01}}
optimizer: {{type: adamw}}
phases:
  - {{name: coarse, length: 2 steps, resolution: 32, batch: {{images: 2}}}}
  - {{name: fine, length: 3 steps, resolution: 48, batch: {{images: 2}}}}
augmentation: {{flip: 0.5}}
average_weights: {{decay: 0.8}}
checkpoints: {{every: 1 steps, keep: {{last: 99}}}}
evaluation: {{every: 100% of run}}
runtime: {{trackers: [], threads: 1}}
"""


def recipe_file(root: Path, task: str) -> Path:
    stripes_on_canvases(root)
    path = root / "canvases.yaml"
    path.write_text(RECIPE.format(root=root, task=TASKS[task]))
    return path


def train(file: Path, out: Path, *overrides: str) -> dict[str, float]:
    return train_on_images(load_vision_recipe(str(file), list(overrides)), out).metrics


def weights_of(run: Path) -> dict[str, Any]:
    newest = max((run / "checkpoints").iterdir())
    return {path.name: path.read_bytes() for path in sorted(newest.glob("*.safetensors"))}


@pytest.mark.parametrize("task", TASKS)
def test_a_run_goes_on_to_the_same_bits(tmp_path: Path, task: str) -> None:
    """With drawn anchors and regions, stochastic depth, mirror images and an average; and the same
    whether activations are rebuilt or stored."""
    file, run = recipe_file(tmp_path, task), tmp_path / "run"
    measured = train(file, run)
    whole = losses_of(run), weights_of(run)
    assert set(measured) == set(measures_of(load_vision_recipe(str(file)).recipe))
    assert metrics_of(run)[-1]["images"] == 10
    shutil.rmtree(run / "checkpoints" / max(path.name for path in (run / "checkpoints").iterdir()))
    for name in ("6", "8"):
        for path in (run / "checkpoints").iterdir():
            if int(path.name) == int(name):
                shutil.rmtree(path)
    again = train(file, run, "runtime.workers=3")
    assert (losses_of(run), weights_of(run)) == whole and again == measured
    train(file, tmp_path / "stored", "runtime.activation_memory=store")
    assert (losses_of(tmp_path / "stored"), weights_of(tmp_path / "stored")) == whole
    evaluated = evaluate_run(run)
    assert evaluated == {"images": 3} | measured
    with pytest.raises(UserError, match=r"has changed since the run began: task.width"):
        train(file, run, "task.width=16")


def test_a_detector_is_evaluated_on_other_images(tmp_path: Path) -> None:
    file, run = recipe_file(tmp_path, "mask_rcnn"), tmp_path / "run"
    train(file, run)
    canvases = tmp_path / "canvases"
    results = tmp_path / "found" / "results.json"
    own = evaluate_run(run, results=results)
    assert {"validation/box_AP", "validation/mask_AR100"} <= set(own)
    told = json.loads(results.read_text())
    split = open_coco(canvases / "validation", canvases / "validation.json", 1, "validation")
    assert {entry["image_id"] for entry in told} <= {image.id for image in split.images}
    assert all(set(entry) >= {"bbox", "score", "segmentation"} for entry in told)
    other = evaluate_run(run, canvases / "train", annotations=canvases / "train.json")
    assert other["images"] == 6
    with pytest.raises(UserError, match="--annotations: a run that finds objects needs it"):
        evaluate_run(run, canvases / "train")
    with pytest.raises(UserError, match="--resolution: height and width"):
        evaluate_run(run, resolution=44)


def test_a_detector_starts_from_a_classifier_or_from_a_detector(
    tmp_path: Path, pictures: Path
) -> None:
    file = recipe_file(tmp_path, "segmentation")
    classifier = tmp_path / "classifier.yaml"
    classifier.write_text(CLASSIFICATION.format(data=pictures))
    shape = ("model.extra_silos=0", "model.fixed_point_bits=14", "augmentation={}")
    short = ("phases.0.length=1 steps", "phases.1.length=1 steps")
    train(classifier, tmp_path / "trained", *shape, *short)
    pretrained = load_vision_run(tmp_path / "trained").network.state_dict()
    start = f"start_from={{type: run, path: {tmp_path}/trained}}"
    still = ("parametrization.learning_rate=1e-30", *short)
    train(file, tmp_path / "fresh", start, *still)
    begun = load_vision_run(tmp_path / "fresh", averaged=False).network.state_dict()
    name = next(
        key for key in pretrained if key.startswith("backbone.") and key.endswith(".weight")
    )
    torch.testing.assert_close(begun[f"body.{name}"], pretrained[name])
    train(file, tmp_path / "second", start.replace("trained", "fresh"), *still)
    second = load_vision_run(tmp_path / "second", averaged=False).network.state_dict()
    torch.testing.assert_close(second["classify.weight"], begun["classify.weight"])
    with pytest.raises(UserError, match="is a run of another task"):
        train(
            recipe_file(tmp_path, "mask_rcnn"),
            tmp_path / "third",
            start.replace("trained", "fresh"),
        )


def test_the_plan_counts_neck_and_heads(tmp_path: Path) -> None:
    file = recipe_file(tmp_path, "mask_rcnn")
    plan = plan_vision_recipe(load_vision_recipe(str(file)).recipe)
    wide = plan_vision_recipe(load_vision_recipe(str(file), ["task.head_width=32"]).recipe)
    cells = 8 * 7 * 7
    classes, regions = 4, 8
    grown = 16 * cells + 16 + 3 * 16 * 16 + 16 + 16 * 5 * classes
    assert wide.timeline.parameters - plan.timeline.parameters == grown
    work = [own.multiply_adds[0].linear for own in (plan, wide)]
    assert work[1] - work[0] == regions * (16 * cells + 3 * 16 * 16 + 16 * 5 * classes)
    stored = plan_vision_recipe(
        load_vision_recipe(str(file), ["runtime.activation_memory=store"]).recipe
    )
    assert stored.memory(1).activations > plan.memory(1).activations


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "task=classification",
            "images.format: the task classification needs folder, idx or webdataset",
        ),
        ("augmentation.mixup=0.2", "augmentation: the task segmentation takes flip only"),
        ("images.object_pixels=[20, 10]", "object_pixels: give the smaller side first"),
        ("images.objects=letters", "images.objects"),
        ("task={type: detection, anchor_sizes: [8, 16]}", "task.anchor_sizes: 2 sizes for 3"),
        ("task={type: detection, head: yolo}", "task.head"),
        ("task={type: detection, head: fcos, width: 48}", "task.width: the head fcos normalises"),
        ("task={label_smoothing: 0.1}", "images.format: the task classification needs"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(tmp_path: Path, override: str, message: str) -> None:
    file = recipe_file(tmp_path, "segmentation")
    with pytest.raises(UserError) as raised:
        load_vision_recipe(str(file), [override])
    assert message in str(raised.value)


@pytest.mark.slow
def test_a_detector_finds_what_it_has_learned_by_heart(tmp_path: Path) -> None:
    """Four canvases, whose objects it finds again in evaluation mode, at their places.

    With masks; without them the detector is the same, and the shipped recipe learns below.
    """
    pytest.importorskip("sklearn")
    recipe = load_vision_recipe(
        "revbifpn/detection",
        [
            *(f"images.path={tmp_path}/canvases", "choose.head=mask_rcnn", "choose.memory=store"),
            *("images.train_images=4", "images.validation_images=1"),
        ],
    ).recipe
    split, fill = open_objects(recipe, "train"), fill_of(recipe)
    side = recipe.phases[0].resolution
    detector = object_network(recipe)
    assert isinstance(detector, Detector) and detector.has_masks
    examples = [object_example(split, n, side, fill, detector.has_masks) for n in range(4)]
    pixels, *objects = packed(examples)
    images = normalisation(recipe)(pixels)
    optimizer = torch.optim.AdamW(detector.parameters(), 1e-3)
    torch.manual_seed(0)
    for _ in range(120):
        loss = detector(images, *objects) / len(images)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimizer.step()
    held_out = HeldOut(split, recipe, side, 4, torch.device("cpu"), nullcontext)
    measured = measure_detector(detector, held_out)
    assert measured["validation/box_AP50"] > 0.9
    assert measured["validation/mask_AP50"] > 0.7


@pytest.mark.slow
def test_the_shipped_recipe_learns_to_find_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    metrics = train_on_images(
        load_vision_recipe(
            "revbifpn/detection",
            [
                f"images.path={tmp_path}/canvases",
                "images.train_images=400",
                "images.validation_images=40",
                "phases.0.length=150 steps",
                "phases.0.batch.images=4",
                "runtime.threads=1",
            ],
        ),
        tmp_path / "run",
    ).metrics
    assert metrics["validation/box_AP50"] > 0.1
