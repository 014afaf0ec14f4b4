"""Points for fitting a law: read from a CSV file, checked, sorted, duplicates averaged."""

import csv
import math
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.plan.laws.law import Point

COLUMNS = ("flops", "loss")


def read_points(path: Path) -> list[Point]:
    """Read the points of a CSV file from its columns ``flops`` and ``loss``.

    Raises UserError that names the line of a value that is not a number.
    """
    if not path.is_file():
        raise UserError(f"{path} is neither a CSV file nor a run folder")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        try:
            names = [name.strip() for name in rows.fieldnames or ()]
            rows.fieldnames = names
            for column in COLUMNS:
                if names.count(column) != 1:
                    raise UserError(
                        f"{path} must have one column named {column}",
                        found=", ".join(names) or "an empty file",
                        allowed=", ".join(COLUMNS),
                    )
            return [
                Point(
                    *(_number(row[column], column, f"{path}:{rows.line_num}") for column in COLUMNS)
                )
                for row in rows
            ]
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not a CSV file", found=error) from None


def _number(text: str | None, column: str, where: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise UserError(
            f"{column}: {(text or '').strip()!r} is not a number",
            where=where,
            allowed="such as 2.6e18",
        ) from None


def clean_points(points: Iterable[Point]) -> tuple[tuple[Point, ...], list[str]]:
    """Return the points sorted by FLOPs, with duplicates averaged, and a note for each average.

    Raises UserError for FLOPs or a loss that is not a finite number above 0.
    """
    given = [Point(*point) for point in points]
    for index, point in enumerate(given):
        for name, value in point._asdict().items():
            if not (math.isfinite(value) and value > 0):
                raise UserError(
                    f"{name}: point {index + 1} has {name} {value:g}; it must be finite and above 0"
                )
    cleaned, warnings = [], []
    for flops, group in groupby(sorted(given), key=lambda point: point.flops):
        losses = [point.loss for point in group]
        if len(losses) > 1:
            shown = ", ".join(f"{loss:.6g}" for loss in losses)
            warnings.append(
                f"{len(losses)} points have {flops:.6g} FLOPs (losses {shown}): averaged"
            )
        cleaned.append(Point(flops, sum(losses) / len(losses)))
    return tuple(cleaned), warnings
