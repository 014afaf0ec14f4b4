"""A law fitted to the user's own runs, read from its record for use in plans."""

import json
from dataclasses import dataclass
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.plan.laws.law import Basis, ComputeLaw, ParametricLaw, Point, law_named
from feldspar.plan.laws.law_fit import LawFit, fit_law

RECORD_NAME = "scaling.json"
SAME_RATIO = 0.01
"""Sizes count as having the same tokens per parameter below this relative difference."""


@dataclass(frozen=True, kw_only=True)
class FittedLaw(ComputeLaw):
    """A law with its fit. The bootstrap of the fit gives the interval of new runs."""

    fit: LawFit
    metric: str
    """The figure of validation that the law predicts."""

    def interval(self, flops: float, basis: Basis) -> tuple[float, float]:
        """Return the interval of 95 % of new runs. Raises UserError for another basis."""
        self.basis.require(basis, self.name)
        interval = self.fit.interval(flops)
        assert interval is not None, "a law has more points than parameters"
        return interval


def find_law(reference: str) -> ComputeLaw | ParametricLaw:
    """Return a published law by its name, or a fitted law by its scaling.json or its folder."""
    path = Path(reference)
    if path.is_dir():
        path /= RECORD_NAME
    return read_law(path) if path.suffix == ".json" else law_named(reference)


def read_law(path: Path) -> FittedLaw:
    """Read the law in a record of ``scaling run`` or ``scaling fit``.

    Raises UserError for anything else, and for a law fitted to points of unknown basis.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        points = [Point(**point) for point in record["points"]]
        held_out, huber, basis = record["held_out_sizes"], record["huber"], record["basis"]
        ratios = [size["tokens"] / size["parameters"] for size in record.get("sizes", ())]
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist", do="fit a law: feldspar scaling fit RUN... --out FOLDER"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is no record of a law", found=error) from None
    if basis is None:
        raise UserError(
            f"{path}: the law was fitted to a CSV file, so it is unknown what it holds for",
            do="fit it to run folders",
        )
    fit = fit_law(points, held_out=held_out, huber=huber, basis=Basis(**basis))
    noise = fit.final.noise_std
    assert noise is not None, "a law has more points than parameters"
    one_ratio = bool(ratios) and max(ratios) <= min(ratios) * (1 + SAME_RATIO)
    return FittedLaw(
        name=str(path),
        curve=fit.final.curve,
        basis=Basis(**basis),
        relative_std=noise,
        fitted_flops=(fit.points[0].flops, fit.points[-1].flops),
        source=f"fitted to {len(fit.points)} sizes of your own",
        tokens_per_parameter=sum(ratios) / len(ratios) if one_ratio else None,
        fit=fit,
        metric=record["metric"],
    )
