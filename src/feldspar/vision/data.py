"""The images of a recipe, checked against each other and the network."""

from dataclasses import dataclass

from feldspar.core.errors import UserError
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.folder import open_folder
from feldspar.vision.idx import open_idx
from feldspar.vision.images import LabelledImages
from feldspar.vision.webdataset import open_webdataset

OPENERS = {"folder": open_folder, "idx": open_idx, "webdataset": open_webdataset}


@dataclass(frozen=True)
class ImageData:
    """The two splits of a recipe."""

    train: LabelledImages
    validation: LabelledImages

    @property
    def digest(self) -> str:
        """A value that changes with the training images."""
        return self.train.digest


def open_images(recipe: VisionRecipe) -> ImageData:
    """Open both splits of a recipe's images and check them.

    Raises UserError where files are absent, damaged or empty, and for another number of classes.
    """
    train, validation = open_split(recipe, "train"), open_split(recipe, "validation")
    _require_same_classes(train, validation)
    declared = recipe.images.train_images
    if declared is not None and declared != len(train):
        raise UserError(
            f"images.train_images: the recipe declares {declared:,} images, there are "
            f"{len(train):,}",
            where=str(recipe.images.train),
        )
    return ImageData(train, validation)


def open_split(recipe: VisionRecipe, split: str) -> LabelledImages:
    """Open one split, ``train`` or ``validation``. Raises UserError as ``open_images`` does."""
    settings, channels = recipe.images, recipe.model.image_channels
    path = getattr(settings, split)
    opened = OPENERS[settings.format](path, channels, split)
    found, wanted = len(opened.classes), recipe.model.classes
    if found != wanted:
        raise UserError(
            f"model.classes: the network tells {wanted} classes apart, "
            f"images.{split} holds {found}",
            where=str(path),
            do=f"set model.classes={found}",
        )
    return opened


def _require_same_classes(train: LabelledImages, validation: LabelledImages) -> None:
    if train.classes == validation.classes:
        return
    lacking = sorted(set(train.classes) - set(validation.classes))
    if lacking:
        raise UserError(
            f"images.validation: the class {lacking[0]!r} of images.train is missing here",
            found=f"{len(lacking)} of {len(train.classes)} classes are missing",
            do="add images of each class, or remove the class from images.train",
        )
    foreign = sorted(set(validation.classes) - set(train.classes))
    raise UserError(
        f"images.validation: the class {foreign[0]!r} is missing in images.train",
        found=f"{len(foreign)} classes that training does not know",
        do="remove them, or add training images of each",
    )
