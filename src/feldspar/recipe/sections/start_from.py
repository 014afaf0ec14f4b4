"""Settings of the weights that a run starts with."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from feldspar.recipe.base import Settings


def _number_to_text(value: Any) -> Any:
    """Read a number of tokens as the name of a checkpoint."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _names_a_checkpoint(name: str) -> str:
    if name not in ("last", "best") and not (name.isascii() and name.isdigit()):
        raise ValueError(
            f"{name!r} names no checkpoint; write last, best, or the number of tokens that the run "
            "had read, such as 4096"
        )
    return name


class StartFromScratch(Settings):
    """Random weights from the parametrization's table."""

    type: Literal["scratch"] = "scratch"


class StartFromRun(Settings):
    """The weights of another run's checkpoint."""

    type: Literal["run"]
    path: str
    """The run folder."""
    checkpoint: Annotated[
        str,
        BeforeValidator(_number_to_text, json_schema_input_type=str | int),
        AfterValidator(_names_a_checkpoint),
    ] = "last"
    """last; best, by the metric that the run's checkpoints.keep.best names; or the number of tokens
    that names a checkpoint."""
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
