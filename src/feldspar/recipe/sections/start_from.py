"""Settings of the weights that a run starts with."""

from typing import Literal

from feldspar.recipe.base import Settings


class StartFromScratch(Settings):
    """Random weights from the parametrization's table."""

    type: Literal["scratch"] = "scratch"


class StartFromRun(Settings):
    """The weights of another run's checkpoint."""

    type: Literal["run"]
    path: str
    """The run folder."""
    checkpoint: str = "last"
    """last, or the number of tokens that names a checkpoint."""
    recipe: str | None = None
    """Recipe that trains that run; an error names it where the run is missing."""


class StartFromHuggingFace(Settings):
    """The weights of a model folder: imported, or from Hugging Face."""

    type: Literal["huggingface"]
    path: str
    """The folder."""
    base: str | None = None
    """Base that a package holds, such as smollm2-135m; it is imported into the folder if that is
    missing."""


StartFrom = StartFromScratch | StartFromRun | StartFromHuggingFace
