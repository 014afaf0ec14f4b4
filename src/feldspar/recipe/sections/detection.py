"""Settings of a vision recipe whose images have objects: COCO's files, detection, segmentation."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from feldspar.recipe.base import Count, NameOrMapping, Settings

Statistics = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


class ObjectImages(Settings):
    """Keys of all images with objects."""

    mean: tuple[float, ...] | None = None
    """Mean of each channel, subtracted from pixel values of 0 to 1; default: ImageNet's, or 0.5 for
    gray."""
    std: Statistics | None = None
    """Standard deviation of each channel, the divisor after the mean; default: ImageNet's, or 0.5
    for gray."""


class CocoImages(ObjectImages):
    """Images with COCO's annotations: boxes, masks and categories."""

    format: Literal["coco"]
    """COCO's files: a folder of images and a JSON file of their objects."""
    train: Path
    """Folder of the training images."""
    train_annotations: Path
    """COCO's JSON file of the training images."""
    validation: Path
    """Folder of the images that are measured."""
    validation_annotations: Path
    """COCO's JSON file of the images that are measured."""
    train_images: Count | None = None
    """Declared number of training images, for plans without them; checked when they are there."""


class DigitObjects(Settings):
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn's package holds."""

    type: Literal["digits"] = "digits"


class IdxObjects(Settings):
    """Objects in MNIST's files, such as Fashion-MNIST's."""

    type: Literal["idx"]
    train: Path
    """Common beginning of the files whose objects the training images show."""
    validation: Path
    """Common beginning of the files whose objects the measured images show."""


class CanvasImages(ObjectImages):
    """Small real images placed on canvases of noise, with boxes, masks and COCO's JSON.

    The folder is built where it is missing. The settings below decide every pixel of it.
    """

    format: Literal["canvases"]
    """Canvases that feldspar makes."""
    path: Path
    """Folder of the canvases, which holds train, validation and their JSON files."""
    objects: Annotated[DigitObjects | IdxObjects, Field(discriminator="type"), NameOrMapping] = (
        DigitObjects()
    )
    """Source of the objects; those of measured canvases are in no training canvas."""
    train_images: Count = 1000
    """Number of training canvases."""
    validation_images: Count = 200
    """Number of measured canvases."""
    pixels: Count = 96
    """Side of a canvas."""
    most_objects: Count = 4
    """Largest number of objects on a canvas; the smallest is 1."""
    object_pixels: tuple[Count, Count] = (16, 40)
    """Smallest and largest side that an object's square is resized to."""
    seed: int = 0
    """Seed of sizes, places and noise."""

    @property
    def train(self) -> Path:
        """Folder of the training canvases."""
        return self.path / "train"

    @property
    def train_annotations(self) -> Path:
        """COCO's JSON file of the training canvases."""
        return self.path / "train.json"

    @property
    def validation(self) -> Path:
        """Folder of the measured canvases."""
        return self.path / "validation"

    @property
    def validation_annotations(self) -> Path:
        """COCO's JSON file of the measured canvases."""
        return self.path / "validation.json"

    @model_validator(mode="after")
    def _objects_fit(self) -> Self:
        low, high = self.object_pixels
        if not low <= high <= self.pixels:
            raise ValueError(
                f"object_pixels: give the smaller side first, and at most pixels={self.pixels}; "
                f"found {low} and {high}"
            )
        return self


FCOS_GROUPS = 32
"""Groups of channels that torchvision's head of FCOS normalises."""
Head = Literal["faster_rcnn", "mask_rcnn", "retinanet", "fcos"]
Neck = Literal["fpn", "hrfpn"]


class DetectionTask(Settings):
    """Find objects: boxes with classes, and masks where the head is mask_rcnn."""

    type: Literal["detection"]
    head: Head = "faster_rcnn"
    """Head of torchvision: faster_rcnn, mask_rcnn (boxes and masks), retinanet or fcos."""
    neck: Neck = "fpn"
    """fpn: from coarse to fine, levels are added (1612.03144). hrfpn: all streams are joined at the
    finest resolution and pooled to each level (1904.04514)."""
    width: Count = 256
    """Channels of each level of the neck."""
    neck_norm: bool = False
    """Put batch norm after each convolution of the neck. The streams are sums without a norm of
    their own, so that training from scratch needs it (1811.08883)."""
    anchor_sizes: tuple[Count, ...] | None = None
    """Side of each level's anchors in pixels, finest level first; default: 8 times the level's
    stride, 4 times for retinanet, and the stride itself for fcos, which finds objects of 4 to 8
    times that side on each level."""
    head_width: Count = 1024
    """Width of the two layers that classify a region (faster_rcnn, mask_rcnn)."""
    proposals: tuple[Count, Count] = (2000, 1000)
    """Most regions of an image that training and measuring look at (faster_rcnn, mask_rcnn)."""
    sampled_anchors: Count = 256
    """Anchors of each image that the region proposals learn from (faster_rcnn, mask_rcnn)."""
    sampled_regions: Count = 512
    """Regions of each image that the head learns from (faster_rcnn, mask_rcnn)."""
    detections: Count = 100
    """Most objects that are reported of an image."""

    @model_validator(mode="after")
    def _norms_divide_the_width(self) -> Self:
        if self.head == "fcos" and self.width % FCOS_GROUPS:
            raise ValueError(
                f"width: the head fcos normalises channels in {FCOS_GROUPS} groups, so that the "
                f"width must be a multiple of {FCOS_GROUPS}, not {self.width}"
            )
        return self

    @property
    def has_masks(self) -> bool:
        """True if masks are learned."""
        return self.head == "mask_rcnn"


class SegmentationTask(Settings):
    """Give each pixel a class: the category of the object that covers it, or background.

    Pixels of crowds are ignored. Where objects overlap, the smaller one counts.
    """

    type: Literal["segmentation"]
    width: Count = 256
    """Channels of the layer that joins the streams."""
