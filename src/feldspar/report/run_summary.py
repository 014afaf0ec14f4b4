"""The summary of a quickstart: what was measured and written once the run was trained."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from feldspar.core.errors import RunError
from feldspar.recipe.recorded import SUMMARY_NAME

OVERALL = "overall"

BySource = dict[str, float]


class DocumentCounts(BaseModel):
    """Documents read, removed by reason, and kept."""

    read: int
    kept: int
    removed: dict[str, int]


class Summary(BaseModel):
    """Bits per byte by source, of the model and of the baselines, and how they came about."""

    recipe: str
    """The digest of the recipe that was asked for."""
    bits_per_byte: BySource
    baselines_by_source: dict[str, BySource]
    documents: DocumentCounts
    seconds: dict[str, float]
    """By stage."""
    samples: list[str] = Field(default=[])

    @property
    def columns(self) -> dict[str, BySource]:
        """The model's figures and those of each baseline."""
        return {"model": self.bits_per_byte} | self.baselines_by_source

    @model_validator(mode="after")
    def _every_figure_is_there(self) -> Self:
        for name, values in self.columns.items():
            lacking = {OVERALL, *self.bits_per_byte} - values.keys()
            if lacking:
                raise ValueError(f"{name} has no figure of {min(lacking)}")
        return self


def read_summary(run: Path) -> Summary | None:
    """Read ``summary.json`` of a run; None without one. Raises RunError when it is damaged."""
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
            do="delete it and give the same quickstart again: it measures and releases again",
        ) from error
