"""Settings of a vision recipe: the network (2206.14098, S0 to S6), images, task and phases."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from feldspar.core.errors import UserError, nearest
from feldspar.recipe.amounts import Amount
from feldspar.recipe.base import Count, NameOrMapping, Settings, without_defaults
from feldspar.recipe.schedules import ScheduleField
from feldspar.recipe.sections.runtime import (
    AutoDistribution,
    CommonRuntime,
    DdpDistribution,
    SingleDistribution,
)

STEM_STRIDE = 4
"""Side, in image pixels, of the square that becomes one position of the finest stream."""
MOST_STREAMS = 4
"""Streams for which the paper sets kernels, expansions and squeeze ratios."""


class RevBiFPNSettings(Settings):
    """Streams, depth, neck and head of the network; stream 0 is the finest."""

    type: Literal["revbifpn"] = "revbifpn"
    size: Literal["S0", "S1", "S2", "S3", "S4", "S5", "S6"] | None = None
    """One of the paper's seven sizes; it sets each key that the recipe does not give."""
    channels: tuple[Count, ...]
    """Width of each stream; stream i has 1 / (4 * 2^i) of the image's resolution."""
    neck_channels: tuple[Count, ...] | None
    """Width of each stream after the neck. null: no neck, the head reads the backbone's streams."""
    head_width: Count
    """Width of the convolution before pooling."""
    classes: Count = 1000
    """Rows of the classifier."""
    image_channels: Count = 3
    """Channels of the image. The stem repeats them in turn, up to a 16th of the finest stream's
    channels."""
    residual_layers: Count = 2
    """Layers of reversible residual blocks before each silo."""
    extra_silos: Annotated[int, Field(ge=0)] = 2
    """Silos after the ones that add a stream."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of pooled features that is dropped in training."""
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the last stage's branches that is dropped; earlier stages drop less, in linear
    steps."""
    fixed_point_bits: Annotated[int, Field(ge=1, le=22)] | None = None
    """Round the output of each branch to multiples of 2^-bits, so that streams and gradients are
    rebuilt bit for bit (in float32 up to 2^(24 - bits)). Default: no rounding."""

    @property
    def n_streams(self) -> int:
        """Number of streams (resolutions)."""
        return len(self.channels)

    @property
    def head_channels(self) -> tuple[int, ...]:
        """Width of each stream that the head reads: the neck's, else the backbone's."""
        return self.channels if self.neck_channels is None else self.neck_channels

    @property
    def n_stages(self) -> int:
        """Number of silos: those that add a stream, and the extra ones."""
        return self.n_streams - 1 + self.extra_silos

    @property
    def size_multiple(self) -> int:
        """Number that height and width of an image must be divisible by."""
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
            raise ValueError(
                f"channels: {self.n_streams} streams are not supported; give 2 to {MOST_STREAMS}"
            )
        if len(self.head_channels) != self.n_streams:
            raise ValueError(
                f"neck_channels: {len(self.head_channels)} widths for {self.n_streams} streams"
            )
        for width in self.channels:
            if width % 2:
                raise ValueError(
                    "channels: each width must be even, because streams are split into "
                    f"halves; {width} is odd"
                )
        stacked, rest = divmod(self.channels[0], STEM_STRIDE**2)
        if rest or stacked < self.image_channels:
            raise ValueError(
                "channels: the first width must be a multiple of 16 and at least "
                f"{16 * self.image_channels} (16 pixels of {self.image_channels} "
                f"channels), not {self.channels[0]}"
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
            f"no RevBiFPN has the size {size!r}",
            allowed=SIZES,
            do=f"use {close}" if close else None,
        )
    return RevBiFPNSettings.model_validate({"size": size, "classes": classes})


class ImagesSettings(Settings):
    """Images to read, and the normalisation of their pixels."""

    format: Literal["folder", "idx", "webdataset"]
    """folder: SPLIT/CLASS/NAME.jpg; idx: MNIST's files SPLIT-images-idx3-ubyte and
    SPLIT-labels-idx1-ubyte, with or without .gz; webdataset: tar files that hold KEY.jpg beside the
    number of its class, in KEY.cls or as label in KEY.json."""
    train: Path
    """The training split: a folder of class folders, the files' common beginning, or tar files,
    where {000..009} stands for the numbers from 000 to 009."""
    validation: Path
    """The split that is measured; it has the classes of the training split."""
    train_images: Count | None = None
    """Declared number of training images, for plans without them; checked when they are there."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, subtracted from pixel values of 0 to 1; default: ImageNet's, or 0.5 for
    gray."""
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    """Standard deviation of each channel, the divisor after the mean; default: ImageNet's, or 0.5
    for gray."""


class StartFromAuthors(Settings):
    """Weights that the paper's authors published for one of its sizes."""

    type: Literal["authors"]
    path: Path
    """File of the authors, such as revbifpn_s0.pth.tar."""


class VisionParametrization(Settings):
    """Base hyper-parameters of the network."""

    learning_rate: PositiveFloat
    """Peak learning rate, which the run's schedule is a fraction of."""


class ClassificationTask(Settings):
    """Predict one class for each image, with cross-entropy."""

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
    """A random part of the image with a black border, at the image's resolution."""

    type: Literal["padded"]
    pixels: Count
    """Width of the border."""


class CentreCrop(Settings):
    """Largest square in the middle, as in validation."""

    type: Literal["centre"] = "centre"


class RandAugment(Settings):
    """Random operations of random strength on each image (1909.13719)."""

    operations: Count = 2
    """Number of operations drawn for each image; they are applied in turn."""
    magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    """Strength of the operations; 10 is the strongest."""
    deviation: Annotated[float, Field(ge=0)] = 0.5
    """Standard deviation of the strength between images; values are clipped to 0 and 10."""
    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Probability that a drawn operation is applied."""


class AugmentationSettings(Settings):
    """Random changes of training images; each image of each epoch has its own random stream."""

    crop: Annotated[
        RandomResizedCrop | PaddedCrop | CentreCrop, Field(discriminator="type"), NameOrMapping
    ] = CentreCrop()
    """Part of the image that is used."""
    flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of a mirror image, left to right."""
    rand_augment: RandAugment | None = None
    """Random operations; default: none."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a random rectangle is replaced by noise (1708.04896)."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Strength (both parameters of a beta distribution) of mixing pairs of images and their
    labels (1710.09412); 0: none."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Strength (both parameters of a beta distribution) of replacing a rectangle of each image by
    that of another, and of mixing their labels by its area (1905.04899); 0: none. Where mixup is
    set too, one of the two is drawn for each step."""

    @model_serializer(mode="wrap")
    def _without_cutmix(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ["cutmix"])


class ImageBatch(Settings):
    """The same number of images in every step."""

    images: Count
    """Images of each step."""


class VisionPhaseSettings(Settings):
    """Everything that may change during a run on images. A phase inherits the weights and their
    average."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name in logs and metrics."""
    length: Amount
    """Images, steps or epochs; rounded down to whole steps."""
    resolution: Count
    """Height and width of the images that the network is given, in pixels."""
    batch: ImageBatch
    """Images of one optimizer step; batch norm sees all of them at once."""
    learning_rate: ScheduleField | None = None
    """Absolute learning rate over this phase, instead of the run's schedule."""
    weight_decay: ScheduleField | None = None
    """Absolute weight decay over this phase, instead of the run's schedule."""
    optimizer_state: Literal["keep", "fresh"] = "keep"
    """keep: carry the optimizer's moments over from the phase before; fresh: start new ones."""
    checkpoint_every: Amount | None = None
    """Used instead of checkpoints.every."""
    evaluate_every: Amount | None = None
    """Used instead of evaluation.every."""

    @model_validator(mode="after")
    def _absolute_length(self) -> Self:
        if self.length.relative or self.length.value <= 0:
            raise ValueError(
                f"length: {self.length} must be an absolute amount above 0, because a "
                "phase's length defines the length of the run"
            )
        return self


class VisionEvaluationSettings(Settings):
    """When and how the model is validated on images during training."""

    every: Amount = Amount.parse("10% of run")
    """Distance between two validations; each phase ends with one too."""
    crop: Annotated[float, Field(gt=0, le=1)] = 0.875
    """Side of the square cut from the middle, as a share of the image's shorter side."""


class AverageWeightsSettings(Settings):
    """Moving average of weights and running statistics; the average is evaluated and released."""

    decay: Annotated[float, Field(gt=0, lt=1)]
    """Share of the average that a step keeps."""


class VisionRuntimeSettings(CommonRuntime):
    """Settings of the machine for a run on images."""

    activation_memory: Literal["store", "recompute", "reversible"] = "reversible"
    """store: keep every activation. recompute: keep the input of each block. reversible: keep only
    the last outputs."""
    workers: Count = 1
    """Number of threads of each process that read and augment images; they do not change any
    pixel."""
    distribution: Annotated[
        AutoDistribution | SingleDistribution | DdpDistribution,
        Field(discriminator="type"),
        NameOrMapping,
    ] = AutoDistribution()
    """One process, or one copy of the network in each process."""

    @model_serializer(mode="wrap")
    def _without_distribution(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ["distribution"])
