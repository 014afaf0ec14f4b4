"""A run on images: from a recipe and its images to the last checkpoint, resumed exactly."""

from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.recipe.load import LoadedVisionRecipe
from feldspar.recipe.write import recipe_text
from feldspar.runtime.allocator import keep_freed_pages
from feldspar.runtime.distributed import Distribution
from feldspar.train.lifecycle import OpenRun, RunResult, open_run
from feldspar.train.observers import Checkpoints, Guards, Metrics, Validation
from feldspar.train.trainer import Trainer
from feldspar.vision.classification import (
    TRANSFORMS,
    TRANSFORMS_KEY,
    Classification,
    classification,
)
from feldspar.vision.data import ImageData, ObjectData, open_data
from feldspar.vision.detection.task import ObjectTask, object_task
from feldspar.vision.plan import VisionPlan, plan_vision_recipe


def train_on_images(loaded: LoadedVisionRecipe, out: Path, overwrite: bool = False) -> RunResult:
    """Train a recipe in ``out``; continue a run that is there, or replace it on request.

    Raises UserError for a recipe that does not fit its images or the run, SetupError where
    processes and settings do not agree, RunError when the loss is not finite. SIGTERM and SIGINT
    save a checkpoint and leave with 143 and 130.
    """
    with Distribution.start(loaded.recipe.runtime) as distribution:
        # A function of its own: no network may outlive the distribution.
        return _train(loaded, out, overwrite, distribution)


def _train(
    loaded: LoadedVisionRecipe, out: Path, overwrite: bool, distribution: Distribution
) -> RunResult:
    keep_freed_pages()
    with loaded.locating_errors():
        data = open_data(loaded.recipe)
        plan = plan_vision_recipe(loaded.recipe, len(data.train))
    with open_run(loaded, plan.timeline, out, overwrite) as run:
        return run.finish(begin_training(plan, data, run, distribution))


def begin_training(
    plan: VisionPlan, data: ImageData | ObjectData, run: OpenRun, distribution: Distribution
) -> Trainer:
    """Put a trainer together and bring it to where the run stands.

    Raises UserError where the images are not those that the run was trained on.
    """
    recipe, timeline = plan.recipe, plan.timeline
    begins = run.checkpoint is None
    if not begins:
        require_same_pixels(run.state, data, str(recipe.images.train))
    task: Classification | ObjectTask
    if isinstance(data, ObjectData):
        task = object_task(plan, data, distribution, begins)
    else:
        task = classification(plan, data, distribution, begins)
    metrics = Metrics(run, distribution)
    trainer = Trainer(
        task,
        task.optimizer(),
        [
            *([] if task.average is None else [task.average]),
            Guards(run),
            Validation(run, task.validate),
            metrics,
            Checkpoints(run, metrics),
        ],
        course=timeline,
        phase=timeline.phases[0 if begins else run.state["phase"]],
        folder=run.folder,
        threads=run.choose_threads(distribution),
        seed=recipe.seed,
    )
    text = recipe_text(run.loaded)
    run.begin(trainer, lambda folder: folder.write_recipe(text), lambda: tell_start(task))
    return trainer


def require_same_pixels(state: dict[str, Any], data: ImageData | ObjectData, where: str) -> None:
    """Raise UserError where a run would go on with other images, or with other changes of them."""
    if state["training_images"] != data.digest:
        raise UserError(
            "the training images are not those that the run was trained on",
            where=where,
            do="restore the images that the run was started with, or choose another --out",
        )
    if isinstance(data, ImageData) and state.get(TRANSFORMS_KEY) != TRANSFORMS:
        raise UserError(
            "an earlier version of feldspar began this run, and changed images in another way",
            allowed=f"images changed by {TRANSFORMS}",
            do="finish it with that version, or choose another --out",
        )


def tell_start(task: Classification | ObjectTask) -> dict[str, Any]:
    """Say the plan's warnings; return how many images there are."""
    for warning in task.plan.warnings(task.precision):
        say(f"warning: {warning}")
    return {
        "train_images": len(task.data.train),
        "validation_images": len(task.data.validation),
    }
