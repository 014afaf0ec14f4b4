"""The images of a recipe, checked against each other and the network."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from feldspar.core.errors import UserError
from feldspar.recipe.sections.detection import CanvasImages, CocoImages
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.detection.canvases import build_canvases
from feldspar.vision.detection.coco import CocoSplit, open_coco
from feldspar.vision.folder import open_folder
from feldspar.vision.idx import open_idx
from feldspar.vision.images import LabelledImages
from feldspar.vision.webdataset import open_webdataset

OPENERS = {"folder": open_folder, "idx": open_idx, "webdataset": open_webdataset}


SplitT = TypeVar("SplitT", LabelledImages, CocoSplit)


@dataclass(frozen=True)
class Splits(Generic[SplitT]):
    """The two splits of a recipe."""

    train: SplitT
    validation: SplitT

    @property
    def digest(self) -> str:
        """A value that changes with the training images and what is learned of them."""
        return self.train.digest


class ImageData(Splits[LabelledImages]):
    """Splits of images in classes."""


class ObjectData(Splits[CocoSplit]):
    """Splits of images with objects."""


def open_data(recipe: VisionRecipe) -> ImageData | ObjectData:
    """Open both splits of any recipe's images and check them, as ``open_images`` does.

    Canvases that are missing are built.
    """
    if not isinstance(recipe.images, CanvasImages | CocoImages):
        return open_images(recipe)
    data = ObjectData(open_objects(recipe, "train"), open_objects(recipe, "validation"))
    _require_same_classes(data.train.classes, data.validation.classes)
    _require_declared_number(recipe, len(data.train))
    return data


def open_images(recipe: VisionRecipe) -> ImageData:
    """Open both splits of a recipe's images in classes and check them.

    Raises UserError where files are absent, damaged or empty, and for another number of classes.
    """
    data = ImageData(open_split(recipe, "train"), open_split(recipe, "validation"))
    _require_same_classes(data.train.classes, data.validation.classes)
    _require_declared_number(recipe, len(data.train))
    return data


def _require_declared_number(recipe: VisionRecipe, found: int) -> None:
    declared = recipe.images.train_images
    if declared is not None and declared != found:
        raise UserError(
            f"images.train_images: the recipe declares {declared:,} images, there are {found:,}",
            where=str(recipe.images.train),
        )


def open_objects(recipe: VisionRecipe, split: str) -> CocoSplit:
    """Open one split of images with objects. Raises UserError as ``open_images`` does."""
    settings = recipe.images
    assert isinstance(settings, CanvasImages | CocoImages), "the task has objects"
    if isinstance(settings, CanvasImages):
        build_canvases(settings)
    folder, annotations = getattr(settings, split), getattr(settings, f"{split}_annotations")
    opened = open_coco(folder, annotations, recipe.model.image_channels, split)
    _require_number_of_classes(recipe, split, opened.classes)
    return opened


def open_split(recipe: VisionRecipe, split: str) -> LabelledImages:
    """Open one split, ``train`` or ``validation``. Raises UserError as ``open_images`` does."""
    settings, channels = recipe.images, recipe.model.image_channels
    path = getattr(settings, split)
    opened = OPENERS[settings.format](path, channels, split)
    _require_number_of_classes(recipe, split, opened.classes)
    return opened


def _require_number_of_classes(recipe: VisionRecipe, split: str, classes: tuple[str, ...]) -> None:
    found, wanted = len(classes), recipe.model.classes
    if found != wanted:
        raise UserError(
            f"model.classes: the network tells {wanted} classes apart, "
            f"images.{split} holds {found}",
            where=str(getattr(recipe.images, split)),
            do=f"set model.classes={found}",
        )


def _require_same_classes(train: tuple[str, ...], validation: tuple[str, ...]) -> None:
    if train == validation:
        return
    lacking = sorted(set(train) - set(validation))
    if lacking:
        raise UserError(
            f"images.validation: the class {lacking[0]!r} of images.train is missing here",
            found=f"{len(lacking)} of {len(train)} classes are missing",
            do="add images of each class, or remove the class from images.train",
        )
    foreign = sorted(set(validation) - set(train))
    raise UserError(
        f"images.validation: the class {foreign[0]!r} is missing in images.train",
        found=f"{len(foreign)} classes that training does not know",
        do="remove them, or add training images of each",
    )
