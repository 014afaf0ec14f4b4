"""A family of sizes under SP and muP: its law, its tables and its figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feldspar.core.errors import UserError
from feldspar.papers.kit.rate_sweep import Cell, RateSweep, octaves, percent, pooled_std
from feldspar.plan.laws.law import Point, PowerLaw
from feldspar.plan.laws.law_fit import LawFit, fit_law
from feldspar.report.canvas import Figure
from feldspar.report.figures import Series, line_figure
from feldspar.report.page import Table

PARAMETRIZATION, RATE = "choose.parametrization", "parametrization.learning_rate"
SCORE = "validation/loss"
CONVENTION = "detailed"
"""The count of FLOPs that comes closest to the paper's own."""
NAMES = {"sp": "SP", "mup": "muP"}


@dataclass(frozen=True)
class Member:
    """One size of a family at the rate that was chosen for it, and its loss with each seed."""

    parametrization: str
    size: str
    parameters: int
    flops: float
    rate: float
    losses: tuple[float, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Member":
        """Read a recorded member; its mean loss is computed again."""
        own = {key: value for key, value in values.items() if key != "loss"}
        return cls(**(own | {"losses": tuple(own["losses"])}))

    @property
    def loss(self) -> float:
        """The mean over seeds."""
        return sum(self.losses) / len(self.losses)

    @property
    def relative_std(self) -> float | None:
        """Spread over seeds as a share of the loss; None for one seed."""
        return Cell(self.parametrization, self.parameters, self.rate, self.losses).relative_std


def of(family: Sequence[Member], name: str) -> list[Member]:
    """Return the members under one parametrization, smallest first."""
    own = [member for member in family if member.parametrization == name]
    return sorted(own, key=lambda member: member.flops)


def law_of(members: Sequence[Member]) -> LawFit:
    """Fit the law of a family, judged on its largest member.

    Raises UserError as ``fit_law`` does.
    """
    return fit_law([Point(member.flops, member.loss) for member in members])


def noise_of(family: Sequence[Member]) -> float | None:
    """Return the relative std over seeds, pooled over the sizes that had several, or None."""
    return pooled_std(member.relative_std for member in family)


def swept(sweep: RateSweep, name: str) -> list[float]:
    """Return the variants that were swept under a parametrization, smallest first."""
    return [variant for variant in sorted(sweep.variants) if sweep.row(name, variant)]


def rate_words(sweep: RateSweep, name: str, variants: Sequence[float]) -> str:
    """Word the best rate at the smallest size, and the way from it to each other size's."""

    def edge(variant: float) -> str:
        return " (edge of the grid)" if sweep.is_edge(name, variant) else ""

    first = variants[0]
    each = ", ".join(
        f"{octaves(sweep.shift(name, variant))} at {variant:,}{edge(variant)}"
        for variant in variants[1:]
    )
    rate = math.log2(sweep.best(name, first).rate)
    return f"best 2^{rate:g} at {first:,} parameters{edge(first)}; from there {each}"


def law_words(family: Sequence[Member]) -> list[str]:
    """Word the law of each family, and the noise of a run."""
    words = [
        (
            "Loss of held-out text, nats per byte, mean over sources; FLOPs by the convention "
            "'detailed'; all parameters counted, of which the embeddings are a large part."
        )
    ]
    for name, label in NAMES.items():
        try:
            fit = law_of(of(family, name))
        except UserError as error:
            words.append(f"{label}: {error.what}.")
            continue
        curve: PowerLaw = fit.final.curve
        words.append(
            f"{label}: L(f) = (f / {curve.scale_flops:.3g})^-{curve.exponent:.4f} + "
            f"{curve.constant:.3f}, residuals {fit.final.residual_std:.2%}. "
            + " ".join(f"{warning[0].upper()}{warning[1:]}." for warning in fit.warnings)
        )
    noise = noise_of(family)
    words.append(
        "One seed a size: the noise of a run was not measured."
        if noise is None
        else f"Run-to-run standard deviation over seeds: {noise:.2%} (paper: about 0.35 %)."
    )
    return words


def family_tables(family: Sequence[Member], sweep: RateSweep | None) -> list[Table]:
    """Return tables of the members side by side, and of the sweeps of learning rate."""
    header = [
        "size",
        "parameters",
        "FLOPs",
        "SP rate",
        "SP loss",
        "muP rate",
        "muP loss",
        "muP over SP",
    ]
    rows = []
    mup = {member.size: member for member in of(family, "mup")}
    for own in of(family, "sp"):
        other = mup.get(own.size)
        beside = (
            ["", "", ""]
            if other is None
            else [f"{other.rate:g}", f"{other.loss:.4f}", percent(other.loss / own.loss)]
        )
        cells = [own.size, f"{own.parameters:,}", f"{own.flops:.3g}", f"{own.rate:g}"]
        rows.append([*cells, f"{own.loss:.4f}", *beside])
    tables = [Table(header, rows)]
    if sweep is not None:
        tables += [rate_table(sweep, name) for name in NAMES]
    return tables


def rate_table(sweep: RateSweep, name: str) -> Table:
    """Return a table of losses by rate at each size that was swept; the best is marked *."""
    own = swept(sweep, name)
    rates = [f"{cell.rate:g}" for cell in sweep.row(name, own[0])]
    rows = [
        [f"{NAMES[name]}, {variant:,} parameters", *sweep.loss_cells(name, variant, 4)]
        for variant in own
    ]
    return Table(["base learning rate", *rates], rows)


def family_figure(family: Sequence[Member]) -> Figure:
    """Draw loss over FLOPs of both families, with the law of SP's smaller sizes."""
    lines, ends = [], []
    for name, label in (("mup", "muP"), ("sp", "SP")):
        own = [member for member in of(family, name) if math.isfinite(member.loss)]
        rate = "rate tuned at every size" if name == "sp" else "rate of the smallest size"
        flops, losses = [member.flops for member in own], [member.loss for member in own]
        lines.append(Series(f"{label}, {rate}", flops, losses, "markers"))
        ends += [f"{losses[-1]:.3f} with {label}"] if own else []
    sp = of(family, "sp")
    try:
        fit = law_of(sp)
    except UserError:
        pass
    else:
        steps = [sp[0].flops * (sp[-1].flops / sp[0].flops) ** (index / 40) for index in range(41)]
        losses = [fit.judged[fit.form].predict(flops) for flops in steps]
        label = "law of SP without its largest size"
        lines.append(Series(label, steps, losses, is_reference=True))
    return line_figure(
        f"Held-out nats per byte of the largest size: {' and '.join(ends)}",
        lines, "training FLOPs", "nats per byte", log_x=True, log_y=True,
    )  # fmt: skip
