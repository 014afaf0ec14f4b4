"""The run of a trial: on text or on images, as its recipe says.

Both kinds are checked before the first step, trained, and recognised by the digest of their data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from feldspar.core.errors import UserError, nearest
from feldspar.plan.sources import resolve_mixtures
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import (
    LoadedRecipe,
    LoadedVisionRecipe,
    language_recipe,
    load_any_recipe,
)
from feldspar.train.data import open_shards, source_tokens, with_vocabulary
from feldspar.train.run import train
from feldspar.vision.data import open_data
from feldspar.vision.evaluate import measures_of
from feldspar.vision.plan import plan_vision_recipe
from feldspar.vision.run import train_on_images

TRAIN_LOSS = "train/loss"
MEASURES = ("loss", "bits_per_byte")
"""Measures of validation for each source and for all."""


@dataclass(frozen=True)
class TextRun:
    """A run of a language model."""

    loaded: LoadedRecipe
    data_key = "shards"
    """The key of the digest of the data in a finished trial's record."""

    def check(self, score: str) -> int:
        """Return the run's training tokens.

        Raises UserError for what training would refuse, and for a score that is not measured.
        """
        loaded = self.loaded
        with loaded.locating_errors():
            shards = open_shards(loaded.recipe)
            recipe = with_vocabulary(loaded, shards.vocab_size).recipe
            sizes = source_tokens(shards, recipe)
            timeline = plan_recipe(recipe, sizes).timeline
            resolve_mixtures(recipe, timeline, sizes)
        holdout = recipe.evaluation.holdout
        available = shards.sources("validation") if "validation" in shards.splits else []
        sources = available if holdout == "all" else holdout
        places = ["validation", *(f"validation/{name}" for name in sources)] if sources else []
        require_score(score, [f"{place}/{kind}" for place in places for kind in MEASURES])
        return timeline.length

    def data_digest(self) -> str:
        """Return the digest of the shards."""
        return open_shards(self.loaded.recipe).digest

    def train(self, folder: Path) -> dict[str, float]:
        """Train to the end and return the last validation."""
        return train(self.loaded, folder).metrics


@dataclass(frozen=True)
class ImageRun:
    """A run of a vision model."""

    loaded: LoadedVisionRecipe
    data_key = "training_images"
    """The key of the digest of the data in a finished trial's record."""

    def check(self, score: str) -> int:
        """Return the run's training images.

        Raises UserError for what training would refuse, and for a score that is not measured.
        """
        recipe = self.loaded.recipe
        with self.loaded.locating_errors():
            images = open_data(recipe)
            timeline = plan_vision_recipe(recipe, len(images.train)).timeline
        require_score(score, measures_of(recipe))
        return timeline.length

    def data_digest(self) -> str:
        """Return the digest of the training images."""
        return open_data(self.loaded.recipe).digest

    def train(self, folder: Path) -> dict[str, float]:
        """Train to the end and return the last validation."""
        return train_on_images(self.loaded, folder).metrics


AnyRun = TextRun | ImageRun


def run_of(recipe: str, overrides: Sequence[str]) -> AnyRun:
    """Return the run of a recipe, without its study, so that other targets do not change the
    digest.

    Raises UserError for a recipe that describes documents only.
    """
    loaded = load_any_recipe(recipe, list(overrides))
    if isinstance(loaded, LoadedVisionRecipe):
        return ImageRun(loaded)
    loaded = language_recipe(loaded)
    return TextRun(replace(loaded, recipe=loaded.recipe.model_copy(update={"study": None})))


def require_score(score: str, measured: Sequence[str]) -> None:
    """Raise UserError unless a run has the score: its training loss, or a measure of its
    validation."""
    known = [TRAIN_LOSS, *measured]
    if score not in known:
        hint = nearest(score, known)
        raise UserError(
            f"study.score: unknown metric {score!r}"
            + (f"; did you mean {hint!r}?" if hint else ""),
            allowed=known,
        )
