"""The recipe of a vision model; it shares sections with recipes of language models."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from feldspar.recipe.amounts import Unit
from feldspar.recipe.base import NameOrMapping
from feldspar.recipe.sections.detection import (
    CanvasImages,
    CocoImages,
    DetectionTask,
    SegmentationTask,
)
from feldspar.recipe.sections.optimizer import OptimizerSettings, RmsPropSettings, SgdSettings
from feldspar.recipe.sections.phases import RunSchedule
from feldspar.recipe.sections.runtime import CheckpointSettings
from feldspar.recipe.sections.start_from import StartFromRun, StartFromScratch
from feldspar.recipe.sections.vision import (
    AugmentationSettings,
    AverageWeightsSettings,
    ClassificationTask,
    ImagesSettings,
    RevBiFPNSettings,
    StartFromAuthors,
    VisionEvaluationSettings,
    VisionParametrization,
    VisionPhaseSettings,
    VisionRuntimeSettings,
)
from feldspar.recipe.top import RecipeTop, refuse_units

VISION_KEYS = ("images", "task", "augmentation", "average_weights")
"""Sections that only a recipe of a vision model has."""


def _classification_by_default(value: Any) -> Any:
    return {"type": "classification"} | value if isinstance(value, dict) else value


class VisionRecipe(RecipeTop):
    """A run on images: data, network, hyper-parameters, phases."""

    position_unit = "images"

    start_from: Annotated[
        StartFromScratch | StartFromRun | StartFromAuthors,
        Field(discriminator="type"),
        NameOrMapping,
    ] = StartFromScratch()
    """Weights that the first phase starts with."""
    images: Annotated[ImagesSettings | CocoImages | CanvasImages, Field(discriminator="format")]
    """Training and validation images."""
    model: RevBiFPNSettings
    """Shape of the network."""
    task: Annotated[
        ClassificationTask | DetectionTask | SegmentationTask,
        Field(discriminator="type"),
        BeforeValidator(_classification_by_default),
        NameOrMapping,
    ] = ClassificationTask()
    """Task that the network learns."""
    augmentation: AugmentationSettings = AugmentationSettings()
    """Random changes of training images."""
    parametrization: VisionParametrization
    """Peak learning rate."""
    optimizer: Annotated[
        OptimizerSettings | SgdSettings | RmsPropSettings, Field(discriminator="type")
    ]
    """AdamW, SGD or RMSprop."""
    schedule: RunSchedule = RunSchedule()
    """Schedules over the run, as fractions of the peak."""
    phases: Annotated[tuple[VisionPhaseSettings, ...], Field(min_length=1)]
    """The run, phase by phase."""
    average_weights: AverageWeightsSettings | None = None
    """Keep a moving average of the weights; default: none."""
    checkpoints: CheckpointSettings = CheckpointSettings()
    """When checkpoints are written and which are kept."""
    evaluation: VisionEvaluationSettings = VisionEvaluationSettings()
    """Validation."""
    runtime: VisionRuntimeSettings = VisionRuntimeSettings()
    """Device, precision and memory of activations; they never change the mathematics."""

    @model_validator(mode="before")
    @classmethod
    def _has_no_noise_scale(cls, value: Any) -> Any:
        if isinstance(value, dict) and "noise_scale" in value:
            raise ValueError(
                "noise_scale: it is measured from the gradient of each example alone, and batch "
                "norm mixes the images of a step, so that no image has a gradient of its own; "
                "remove the section"
            )
        return value

    @property
    def context_lengths(self) -> tuple[int, ...]:
        """Positions that one example of each phase counts for: one image."""
        return (1,) * len(self.phases)

    @model_validator(mode="after")
    def _counts_images(self) -> Self:
        refuse_units(self, {Unit.TOKENS, Unit.SEQUENCES, Unit.TOKENS_PER_PARAMETER})
        return self

    @model_validator(mode="after")
    def _images_fit_the_network(self) -> Self:
        multiple = self.model.size_multiple
        for index, phase in enumerate(self.phases):
            if phase.resolution % multiple:
                low = phase.resolution // multiple * multiple
                raise ValueError(
                    f"phases.{index}.resolution: {phase.resolution} is not a multiple of "
                    f"{multiple}, as {self.model.n_streams} streams need; use "
                    f"{low or multiple} or {low + multiple}"
                )
            if phase.batch.images * phase.resolution**2 == multiple**2:
                raise ValueError(
                    f"phases.{index}.batch: with one image of {phase.resolution} pixels, "
                    "batch norm sees one value per channel; use more or larger images"
                )
        channels = self.model.image_channels
        if channels not in (1, 3):
            raise ValueError(
                "model.image_channels: images are read with 1 channel (gray) or 3 "
                f"(colour), not {channels}"
            )
        for name in ("mean", "std"):
            values = getattr(self.images, name)
            if values is not None and len(values) != channels:
                raise ValueError(
                    f"images.{name}: {len(values)} values for {channels} channels of "
                    "model.image_channels"
                )
        return self

    @model_validator(mode="after")
    def _images_fit_the_task(self) -> Self:
        classifies = isinstance(self.task, ClassificationTask)
        if classifies != isinstance(self.images, ImagesSettings):
            formats = "folder, idx or webdataset" if classifies else "coco or canvases"
            raise ValueError(
                f"images.format: the task {self.task.type} needs {formats}, "
                f"not {self.images.format}"
            )
        if classifies:
            return self
        if self.augmentation != AugmentationSettings(flip=self.augmentation.flip):
            raise ValueError(
                f"augmentation: the task {self.task.type} takes flip only, because the other "
                "changes do not move boxes and masks"
            )
        sizes, levels = getattr(self.task, "anchor_sizes", None), self.model.n_streams + 1
        if sizes is not None and len(sizes) != levels:
            raise ValueError(
                f"task.anchor_sizes: {len(sizes)} sizes for {levels} levels, one for each stream "
                "and one above them"
            )
        return self

    @model_validator(mode="after")
    def _phases_have_names_of_their_own(self) -> Self:
        names = [phase.name for phase in self.phases]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise ValueError(f"phases: two phases are named {doubled!r}; give each its own name")
        return self
