"""Sections of a vision recipe: the network (2206.14098, S0 to S6), images, task, phases."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from feldspar.core.errors import UserError, nearest
from feldspar.recipe.amounts import Amount
from feldspar.recipe.base import Count, NameOrMapping, Settings
from feldspar.recipe.schedules import ScheduleField
from feldspar.recipe.sections.runtime import CommonRuntime

STEM_STRIDE = 4
"""Image pixels along each side that become one position of the finest stream."""
MOST_STREAMS = 4
"""Streams for which the paper sets kernels, expansions and squeeze ratios."""


class RevBiFPNSettings(Settings):
    """Streams, depth, neck and head of the network; stream 0 is the finest."""

    type: Literal["revbifpn"] = "revbifpn"
    size: Literal["S0", "S1", "S2", "S3", "S4", "S5", "S6"] | None = None
    """One of the paper's seven: gives every key that is not given itself."""
    channels: tuple[Count, ...]
    """Width of each stream; stream i has 1 / (4 * 2^i) of the image's resolution."""
    neck_channels: tuple[Count, ...]
    """Width of each stream after the neck."""
    head_width: Count
    """Width of the convolution before pooling."""
    classes: Count = 1000
    """Rows of the classifier."""
    image_channels: Count = 3
    """Channels of the image; the stem repeats them, in turn, to a 16th of the finest stream's."""
    residual_layers: Count = 2
    """Layers of reversible residual blocks before each silo."""
    extra_silos: Annotated[int, Field(ge=0)] = 2
    """Silos after the ones that add a stream."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of pooled features that is dropped in training."""
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the last stage's branches that is dropped; it grows linearly from stage to stage."""
    fixed_point_bits: Annotated[int, Field(ge=1, le=22)] | None = None
    """Round what branches add to multiples of 2^-bits: streams are rebuilt, and gradients found,
    bit for bit (in float32 up to 2^(24 - bits)); default: no rounding."""

    @property
    def n_streams(self) -> int:
        """Resolutions of the pyramid."""
        return len(self.channels)

    @property
    def n_stages(self) -> int:
        """Silos: those that add a stream, and the extra ones."""
        return self.n_streams - 1 + self.extra_silos

    @property
    def size_multiple(self) -> int:
        """What height and width of an image must be divisible by."""
        return STEM_STRIDE * 2 ** (self.n_streams - 1)

    @model_validator(mode="before")
    @classmethod
    def _of_size(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("size") in SIZES:
            return SIZES[value["size"]][1] | value
        return value

    @model_validator(mode="after")
    def _streams_fit(self) -> Self:
        if not 2 <= self.n_streams <= MOST_STREAMS:
            raise ValueError(f"channels: {self.n_streams} streams; 2 to {MOST_STREAMS} are known")
        if len(self.neck_channels) != self.n_streams:
            raise ValueError(
                f"neck_channels: {len(self.neck_channels)} widths for {self.n_streams} streams"
            )
        for width in self.channels:
            if width % 2:
                raise ValueError(
                    f"channels: streams are coupled in halves, which {width} does not have"
                )
        stacked, rest = divmod(self.channels[0], STEM_STRIDE**2)
        if rest or stacked < self.image_channels:
            raise ValueError(
                f"channels: the stem makes the finest stream of 16 pixels of {self.image_channels}"
                f" channels or more: {self.channels[0]} is no multiple of 16, or less than"
                f" {16 * self.image_channels}"
            )
        return self


SIZES: dict[str, tuple[int, dict[str, Any]]] = {
    name: (
        resolution,
        {
            "channels": channels,
            "neck_channels": neck_channels,
            "head_width": head_width,
            "extra_silos": extra_silos,
            "dropout": dropout,
            "stochastic_depth": stochastic_depth,
        },
    )
    for (
        name,
        resolution,
        channels,
        neck_channels,
        head_width,
        extra_silos,
        dropout,
        stochastic_depth,
    ) in (
        ("S0", 224, (48, 64, 80, 160), (48, 64, 128, 320), 1280, 2, 0.25, 0.0),
        ("S1", 256, (64, 80, 96, 208), (64, 80, 160, 416), 1696, 2, 0.25, 0.0),
        ("S2", 256, (96, 128, 160, 320), (96, 128, 256, 640), 2560, 2, 0.3, 0.0),
        ("S3", 288, (128, 160, 208, 416), (128, 160, 336, 848), 3408, 3, 0.3, 0.05),
        ("S4", 320, (192, 256, 320, 640), (192, 256, 512, 1280), 5120, 4, 0.4, 0.1),
        ("S5", 352, (256, 336, 416, 848), (256, 336, 672, 1696), 6816, 4, 0.4, 0.1),
        ("S6", 352, (320, 416, 528, 1056), (320, 416, 848, 2128), 8528, 5, 0.6, 0.3),
    )
}
"""Side of the image in pixels, and keys of the settings, of each size in the paper."""


def revbifpn_settings(size: str, classes: int = 1000) -> RevBiFPNSettings:
    """Return the paper's ``size`` (S0 to S6). Raises UserError for another name."""
    if size not in SIZES:
        close = nearest(size, SIZES)
        raise UserError(
            f"there is no RevBiFPN of size {size!r}",
            allowed=SIZES,
            do=f"use {close}" if close else None,
        )
    return RevBiFPNSettings.model_validate({"size": size, "classes": classes})


class ImagesSettings(Settings):
    """Which images are read, and how their pixels become numbers."""

    format: Literal["folder", "idx"]
    """folder: SPLIT/CLASS/NAME.jpg; idx: MNIST's files SPLIT-images-idx3-ubyte and
    SPLIT-labels-idx1-ubyte, with or without .gz."""
    train: Path
    """The training split: a folder of class folders, or the files' common beginning."""
    validation: Path
    """The split that is measured; it has the classes of the training split."""
    train_images: Count | None = None
    """Declared number of training images, for plans without them; checked when they are there."""
    mean: tuple[float, ...] | None = None
    """Subtracted from each channel, of pixels from 0 to 1; default: ImageNet's, 0.5 of gray."""
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    """What each channel is then divided by; default: ImageNet's, 0.5 of gray."""


class StartFromAuthors(Settings):
    """Weights that the paper's authors published for one of its sizes."""

    type: Literal["authors"]
    path: Path
    """Their file, such as revbifpn_s0.pth.tar."""


class VisionParametrization(Settings):
    """Base hyper-parameters of the network."""

    learning_rate: PositiveFloat
    """Peak learning rate, which the run's schedule is a fraction of."""


class ClassificationTask(Settings):
    """One class an image, by cross-entropy."""

    type: Literal["classification"] = "classification"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread evenly over all classes (1512.00567)."""


class RandomResizedCrop(Settings):
    """A random part of the image, resized (1409.4842, section 6)."""

    type: Literal["random_resized"]
    area: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    """Smallest and largest share of the image's area."""
    aspect_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    """Smallest and largest width divided by height."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high) in (("area", self.area), ("aspect_ratio", self.aspect_ratio)):
            if low > high:
                raise ValueError(f"{name}: {low} is more than {high}")
        if self.area[1] > 1:
            raise ValueError(f"area: {self.area[1]} is more than the whole image")
        return self


class PaddedCrop(Settings):
    """The image at its resolution in a black border, of which a random part is cut."""

    type: Literal["padded"]
    pixels: Count
    """Width of the border."""


class CentreCrop(Settings):
    """The largest square in the middle, as validation sees it."""

    type: Literal["centre"] = "centre"


class RandAugment(Settings):
    """Random operations of random strength on each image (1909.13719)."""

    operations: Count = 2
    """How many are drawn for an image, one after the other."""
    magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    """Their strength, 10 being the strongest."""
    deviation: Annotated[float, Field(ge=0)] = 0.5
    """Standard deviation of the strength from image to image; cut off at 0 and 10."""
    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    """With which each drawn operation is applied."""


class AugmentationSettings(Settings):
    """What is done to training images at random; each image of each epoch has its own stream."""

    crop: Annotated[
        RandomResizedCrop | PaddedCrop | CentreCrop, Field(discriminator="type"), NameOrMapping
    ] = CentreCrop()
    """Which part of the image is seen."""
    flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of a mirror image, left to right."""
    rand_augment: RandAugment | None = None
    """Random operations; default: none."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a random rectangle is replaced by noise (1708.04896)."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Strength (both parameters of a beta distribution) of mixing pairs of images and their
    labels (1710.09412); 0: none."""


class ImageBatch(Settings):
    """The same number of images in every step."""

    images: Count
    """Images a step."""


class VisionPhaseSettings(Settings):
    """What may change during a run on images; a phase inherits the weights and their average."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name in logs and metrics."""
    length: Amount
    """Images, steps or epochs; rounded down to whole steps."""
    resolution: Count
    """Height and width of the images that the network is given, in pixels."""
    batch: ImageBatch
    """Images of one optimizer step; batch norm sees all of them at once."""
    learning_rate: ScheduleField | None = None
    """Absolute learning rate over this phase, in place of the run's schedule."""
    weight_decay: ScheduleField | None = None
    """Absolute weight decay over this phase, in place of the run's schedule."""
    optimizer_state: Literal["keep", "fresh"] = "keep"
    """Carry momentum and squares over from the phase before, or start anew."""
    checkpoint_every: Amount | None = None
    """In place of checkpoints.every."""
    evaluate_every: Amount | None = None
    """In place of evaluation.every."""

    @model_validator(mode="after")
    def _absolute_length(self) -> Self:
        if self.length.relative or self.length.value <= 0:
            raise ValueError(
                f"length: {self.length} is no absolute amount above 0: a phase's length defines "
                "the run"
            )
        return self


class VisionEvaluationSettings(Settings):
    """When and how the validation images are measured during training."""

    every: Amount = Amount.parse("10% of run")
    """Distance between two measurements; the end of each phase has one too."""
    crop: Annotated[float, Field(gt=0, le=1)] = 0.875
    """Share of the shorter side that the square cut from the middle has."""


class AverageWeightsSettings(Settings):
    """A moving average of weights and running statistics; it is what is measured and released."""

    decay: Annotated[float, Field(gt=0, lt=1)]
    """How much of the average a step keeps."""


class VisionRuntimeSettings(CommonRuntime):
    """The machine's part of a run on images."""

    activation_memory: Literal["store", "recompute", "reversible"] = "reversible"
    """What the backward pass finds: every activation, each block's inputs, or the last outputs."""
    workers: Count = 1
    """Threads that read and augment images; no pixel depends on them."""
