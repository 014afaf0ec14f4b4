"""Measures of a trained run on held-out images: its own validation split, or another."""

from functools import partial
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.runtime.device import autocast, choose_device, choose_precision
from feldspar.runtime.threads import set_threads
from feldspar.vision.data import open_split
from feldspar.vision.load import load_vision_run
from feldspar.vision.measure import measure
from feldspar.vision.stem import require_divisible


def evaluate_run(
    path: Path,
    images: Path | None = None,
    checkpoint: str = "last",
    resolution: int | None = None,
    averaged: bool = True,
) -> dict[str, float]:
    """Measure loss and accuracies of a run's checkpoint, and count the images.

    ``images`` takes the place of the recipe's validation split. Raises UserError for a run, images
    of other classes or a resolution that do not fit.
    """
    run = load_vision_run(path, checkpoint, averaged)
    recipe = run.loaded.recipe
    if images is not None:
        changed = recipe.images.model_copy(update={"validation": images.resolve()})
        recipe = recipe.model_copy(update={"images": changed})
    last = recipe.phases[-1]
    pixels = resolution or last.resolution
    try:
        require_divisible(recipe.model, pixels, pixels)
    except UserError as error:
        raise UserError(f"--resolution: {error.what}", found=pixels) from None
    split = open_split(recipe, "validation")
    if split.classes != run.classes:
        other = min(set(split.classes) ^ set(run.classes))
        raise UserError(
            f"the run and the images have other classes: only one of them knows {other!r}",
            where=str(recipe.images.validation),
            do="give images of the classes that the run was trained on",
        )
    device = choose_device(recipe.runtime)
    set_threads(recipe.runtime)
    context = partial(autocast, device, choose_precision(recipe.runtime, device))
    network = run.network.to(device)
    measured = measure(network, split, recipe, pixels, last.batch.images, device, context)
    return {"images": len(split)} | measured
