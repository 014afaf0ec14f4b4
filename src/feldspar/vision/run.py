"""A run on images: from a recipe and its images to the last checkpoint, resumed exactly."""

import os
from pathlib import Path
from typing import Any

from feldspar.core.errors import SetupError, UserError
from feldspar.core.progress import say
from feldspar.plan.timeline import StepPlan
from feldspar.recipe.load import LoadedVisionRecipe
from feldspar.recipe.write import recipe_text
from feldspar.runtime.allocator import keep_freed_pages
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.device import choose_device
from feldspar.runtime.distributed import Distribution, under_torchrun
from feldspar.train.lifecycle import Run, RunResult, carry_through
from feldspar.train.loop import StepResult
from feldspar.vision.data import ImageData, open_images
from feldspar.vision.load import CLASSES_KEY
from feldspar.vision.measure import measure
from feldspar.vision.plan import VisionPlan, plan_vision_recipe
from feldspar.vision.session import VisionSession, build_session


class VisionRun(Run[VisionSession]):
    """A run that classifies images."""

    def __init__(self, loaded: LoadedVisionRecipe, out: Path, distribution: Distribution) -> None:
        self.loaded = loaded
        with loaded.locating_errors():
            self.data: ImageData = open_images(loaded.recipe)
            self.plan: VisionPlan = plan_vision_recipe(loaded.recipe, len(self.data.train))
        super().__init__(loaded, self.plan.timeline, out, distribution)

    def begin(self) -> VisionSession:
        """A session at the run's start."""
        return self._session(0, begins=True)

    def write_files(self) -> None:
        """Write the resolved recipe."""
        self.folder.write_recipe(recipe_text(self.loaded))

    def tell_start(self, session: VisionSession) -> dict[str, Any]:
        """Say the plan's warnings; returns how many images there are."""
        for warning in self.plan.warnings(session.precision):
            say(f"warning: {warning}")
        return {
            "train_images": len(self.data.train),
            "validation_images": len(self.data.validation),
        }

    def reopen(self, checkpoint: Checkpoint, state: dict[str, Any]) -> VisionSession:
        """A session as the checkpoint left it. Raises UserError where the images changed."""
        if state["training_images"] != self.data.digest:
            raise UserError(
                "the training images changed under the run",
                where=str(self.loaded.recipe.images.train),
                do="restore the images that the run was started with, or choose another --out",
            )
        session = self._session(state["phase"], begins=False)
        self.store.load(checkpoint, session.model_state, session.runner.optimizer.state())
        return session

    def flops(self, step: StepPlan) -> float:
        """Forward and backward FLOPs of a step; what is computed again is not counted."""
        return self.plan.flops_per_image(step.phase.index) * step.sequences

    def validate(self, session: VisionSession, step: StepPlan) -> dict[str, float]:
        """Loss, top-1 and top-5 of the validation images, at the phase's resolution."""
        phase = self.loaded.recipe.phases[step.phase.index]
        return measure(
            session.measured,
            self.data.validation,
            self.loaded.recipe,
            phase.resolution,
            phase.batch.images,
            self.distribution.device,
            session.runner.autocast,
        )

    def state(self, session: VisionSession) -> dict[str, Any]:
        """Which images the run is trained on, and the names of their classes."""
        return {"training_images": self.data.digest, CLASSES_KEY: list(self.data.train.classes)}

    def record(self, step: StepPlan, result: StepResult, seconds: float) -> dict[str, Any]:
        """Images of a step."""
        return {
            "batch_images": step.sequences,
            "images_per_second": step.sequences / seconds,
        }

    def _session(self, phase_index: int, begins: bool) -> VisionSession:
        return build_session(
            self.loaded.recipe,
            self.data.train,
            self.distribution.device,
            self.timeline.phases[phase_index],
            begins,
        )


def train_on_images(loaded: LoadedVisionRecipe, out: Path, overwrite: bool = False) -> RunResult:
    """Train a recipe in ``out``; what is there already is continued, or replaced on request.

    Raises UserError for a recipe that does not fit its images or the run, SetupError under a
    launcher of several processes, RunError when the loss is not finite. SIGTERM and SIGINT save a
    checkpoint and leave with 143 and 130.
    """
    if under_torchrun() and int(os.environ["WORLD_SIZE"]) > 1:
        raise SetupError(
            "a run on images is trained by one process",
            found=f"torchrun started {os.environ['WORLD_SIZE']}",
            do="start it without torchrun",
        )
    keep_freed_pages()
    distribution = Distribution("single", choose_device(loaded.recipe.runtime))
    return carry_through(lambda: VisionRun(loaded, out, distribution), out, overwrite)
