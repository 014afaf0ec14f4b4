"""Measures of a trained run on held-out images: its own validation split, or another."""

from functools import partial
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.recipe.sections.detection import CanvasImages, CocoImages
from feldspar.recipe.sections.vision import ClassificationTask
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.runtime.device import autocast, choose_device, choose_precision
from feldspar.runtime.threads import set_threads
from feldspar.vision.data import open_objects, open_split
from feldspar.vision.detection.average_precision import Result, write_results
from feldspar.vision.detection.detectors import Detector
from feldspar.vision.detection.measure import (
    HeldOut,
    measure_detector,
    measure_segmenter,
    object_measures,
)
from feldspar.vision.detection.segmenter import Segmenter
from feldspar.vision.images import LabelledImages
from feldspar.vision.load import LoadedVisionRun, load_vision_run
from feldspar.vision.measure import measure, measures
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.stem import require_divisible


def evaluate_run(
    path: Path,
    images: Path | None = None,
    checkpoint: str = "last",
    resolution: int | None = None,
    averaged: bool = True,
    annotations: Path | None = None,
    results: Path | None = None,
) -> dict[str, float]:
    """Measure a run's checkpoint and count the images.

    ``images`` takes the place of the recipe's validation split; where images have objects, COCO's
    file ``annotations`` belongs to it. ``results`` receives what a detector finds, as COCO's
    results file. Raises UserError for a run, images of other classes or a resolution that do not
    fit.
    """
    run = load_vision_run(path, checkpoint, averaged)
    recipe = _with_images(run.loaded.recipe, images, annotations)
    pixels = resolution or recipe.phases[-1].resolution
    try:
        require_divisible(recipe.model, pixels, pixels)
    except UserError as error:
        raise UserError(f"--resolution: {error.what}", found=pixels) from None
    if results is not None and not isinstance(run.network, Detector):
        raise UserError(f"--results: {path} is no run of a detector")
    classifies = isinstance(run.network, RevBiFPN)
    split = (open_split if classifies else open_objects)(recipe, "validation")
    _require_classes(run, split.classes, recipe)
    device = choose_device(recipe.runtime)
    set_threads(recipe.runtime)
    context = partial(autocast, device, choose_precision(recipe.runtime, device))
    network, batch = run.network.to(device), recipe.phases[-1].batch.images
    count: dict[str, float] = {"images": len(split)}
    if isinstance(split, LabelledImages):
        return count | measure(network, split, recipe, pixels, batch, device, context)
    held_out = HeldOut(split, recipe, pixels, batch, device, context)
    if isinstance(network, Segmenter):
        return count | measure_segmenter(network, held_out)
    assert isinstance(network, Detector), "of three kinds it is the one that is left"
    found: list[Result] = []
    measured = measure_detector(network, held_out, found)
    if results is not None:
        write_results(results, found)
    return count | measured


def measures_of(recipe: VisionRecipe) -> list[str]:
    """Return the names of what a recipe's runs measure on validation images."""
    if isinstance(recipe.task, ClassificationTask):
        return measures(recipe.model.classes)
    return object_measures(recipe.task)


def _with_images(
    recipe: VisionRecipe, images: Path | None, annotations: Path | None
) -> VisionRecipe:
    """Return the recipe with other validation images, where they are given."""
    settings = recipe.images
    has_objects = isinstance(settings, CocoImages | CanvasImages)
    if (annotations is not None) != (images is not None and has_objects):
        raise UserError(
            "--annotations: a run that finds objects needs it together with --images, and any "
            "other run needs none",
            do="give the folder of images and COCO's JSON file of them",
        )
    if images is None:
        return recipe
    if annotations is None:
        changed = settings.model_copy(update={"validation": images.resolve()})
    else:
        changed = CocoImages(
            format="coco",
            train=settings.train,
            train_annotations=annotations,
            validation=images.resolve(),
            validation_annotations=annotations.resolve(),
            mean=settings.mean,
            std=settings.std,
        )
    return recipe.model_copy(update={"images": changed})


def _require_classes(run: LoadedVisionRun, classes: tuple[str, ...], recipe: VisionRecipe) -> None:
    if classes != run.classes:
        other = min(set(classes) ^ set(run.classes))
        raise UserError(
            f"the run and the images have other classes: only one of them knows {other!r}",
            where=str(recipe.images.validation),
            do="give images of the classes that the run was trained on",
        )
