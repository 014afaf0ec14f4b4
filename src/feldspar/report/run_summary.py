"""Summary of a quickstart: measurements and samples of the trained run."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from feldspar.core.errors import RunError
from feldspar.recipe.recorded import SUMMARY_NAME

OVERALL = "overall"

BySource = dict[str, float]


class DocumentCounts(BaseModel):
    """Number of documents read, removed by reason, and kept."""

    read: int
    kept: int
    removed: dict[str, int]


class Summary(BaseModel):
    """Bits per byte of the model and of the baselines by source, and the way they came about."""

    recipe: str
    """Digest of the recipe as it was given."""
    bits_per_byte: BySource
    baselines_by_source: dict[str, BySource]
    documents: DocumentCounts
    seconds: dict[str, float]
    """Seconds of each stage."""
    samples: list[str] = Field(default=[])

    @property
    def columns(self) -> dict[str, BySource]:
        """Figures of the model and of each baseline."""
        return {"model": self.bits_per_byte} | self.baselines_by_source

    @model_validator(mode="after")
    def _every_figure_is_there(self) -> Self:
        for name, values in self.columns.items():
            lacking = {OVERALL, *self.bits_per_byte} - values.keys()
            if lacking:
                raise ValueError(f"{name} has no figure of {min(lacking)}")
        return self


def read_summary(run: Path) -> Summary | None:
    """Return ``summary.json`` of a run; None if there is none. Raises RunError if it is damaged."""
    path = run / SUMMARY_NAME
    if not path.is_file():
        return None
    try:
        return Summary.model_validate_json(path.read_bytes())
    except ValidationError as error:
        [problem, *_] = error.errors()
        where = ".".join(map(str, problem["loc"]))
        raise RunError(
            f"{path} is damaged: {where + ': ' if where else ''}{problem['msg']}",
            do="delete it and run the same quickstart again: it measures and releases again",
        ) from error
