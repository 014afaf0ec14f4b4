"""The claims on reading beyond the length trained at, judged by the figures of ``reading``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from feldspar.model.positions import alibi_slopes
from feldspar.papers.alibi_interpolation.reading import (
    LINEAR,
    NONE,
    REACHES,
    SHORT,
    TRAINED,
    WITHIN,
    BySeed,
)
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain, power
from feldspar.papers.kit.paper import Figures, Findings
from feldspar.papers.kit.stated import StatedClaims
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.model import AlibiPositions
from feldspar.report.canvas import Figure
from feldspar.report.figures import Series, half_widths_of, line_figure
from feldspar.report.page import Section, Table

Read = Mapping[str, Mapping[str, BySeed]]
"""A figure of each seed, by arm, scaling and reach."""
TWICE, FAR = 2, 4


@dataclass(frozen=True)
class Measured:
    """The figures of all arms; without recall at the paper's scale."""

    losses: Read
    recall: Read
    nats: Read
    within: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, figures: Figures) -> "Measured":
        """Read recorded figures, whose reaches are words."""
        losses, recall, nats = (
            _by_reach(figures.get(name, {})) for name in ("losses", "recall", "nats")
        )
        return cls(losses, recall, nats, figures.get(WITHIN, {}))

    def has_learnt(self, least: float) -> bool:
        """Return True where ALiBi recalls a share of ``least`` within the length trained at."""
        return fmean(self.within["alibi"]) >= least


def _by_reach(figures: Mapping[str, Any]) -> Read:
    return {
        arm: {
            scaling: {int(reach): own for reach, own in by_reach.items()}
            for scaling, by_reach in scalings.items()
        }
        for arm, scalings in figures.items()
    }


def judge(figures: Figures, length: int, claims: StatedClaims) -> Findings:
    """Make claims, tables and the drawing; without recall, as at the paper's scale, of the text."""
    measured = Measured.of(figures)
    judged = [undamaged_claim(measured, claims)]
    if measured.recall:
        judged += [
            reads_on_claim(measured, claims),
            twice_claim(measured, claims),
            fine_tuned_claim(measured, claims),
        ]
    figure = recall_figure(measured, length) if measured.recall else None
    return Findings(tuple(judged), sections_of(measured, length, figure), figure)


def reads_on_claim(measured: Measured, claims: StatedClaims) -> Claim:
    """Judge the text's loss of plain ALiBi beside rotary positions at four times the length."""
    name = "alibi-reads-on"
    own = {arm: measured.losses[arm] for arm in ("alibi", "rotary")}
    gains = {arm: Gain.of(losses[NONE][FAR], losses[SHORT][FAR]) for arm, losses in own.items()}
    told = "; ".join(
        f"{arm} {fmean(losses[SHORT][FAR]):.4f} in short windows, {fmean(losses[NONE][FAR]):.4f} "
        f"({gains[arm].lower_or_higher})"
        for arm, losses in own.items()
    )
    margin = claims.limit(name, "margin")
    return claims.judged(
        name,
        f"nats per token of the same text, read at once at {FAR}x: {told}",
        held=gains["alibi"].is_at_least(-margin) and gains["rotary"].high < -margin,
    )


def twice_claim(measured: Measured, claims: StatedClaims) -> Claim:
    """Judge recall with slopes divided by two at twice the length, without training."""
    name = "twice-as-far-without-training"
    alibi, rotary = measured.recall["alibi"], measured.recall["rotary"]
    more = Gain.of_shares(alibi[LINEAR][TWICE], alibi[NONE][TWICE])
    gain = Gain.of(measured.nats["alibi"][LINEAR][TWICE], measured.nats["alibi"][NONE][TWICE])
    learnt = measured.has_learnt(claims.limit(name, "learnt"))
    ours = (
        f"values recalled from the farther half of {TWICE}x: "
        f"{fmean(alibi[LINEAR][TWICE]):.1%} with slopes divided, "
        f"{fmean(alibi[NONE][TWICE]):.1%} as trained: {more.worded('more', 'fewer')} of all"
        f"{power(more)}; their loss is {gain.lower_or_higher}; recalled within the length trained "
        f"at {fmean(measured.within['alibi']):.1%}, from its farther half "
        f"{fmean(alibi[NONE][1]):.1%}; rotary {fmean(rotary[NONE][TWICE]):.1%} as trained, "
        f"{fmean(rotary[LINEAR][TWICE]):.1%} with angles divided"
    )
    held = learnt and more.exceeds(claims.limit(name, "points")) and gain.low > 0
    return claims.judged(name, ours, held=held, reading="" if learnt else "unlearnt")


def undamaged_claim(measured: Measured, claims: StatedClaims) -> Claim:
    """Judge the text's loss with slopes divided by two at twice the length."""
    losses = measured.losses["alibi"]
    lost = Gain.of(losses[LINEAR][TWICE], losses[SHORT][TWICE])
    return claims.kept(
        "twice-as-far-without-damage",
        f"nats per token of the same text: {fmean(losses[LINEAR][TWICE]):.4f} at {TWICE}x with "
        f"slopes divided, {fmean(losses[SHORT][TWICE]):.4f} in short windows "
        f"({lost.lower_or_higher}{power(lost)}); {fmean(losses[NONE][TWICE]):.4f} at {TWICE}x as "
        "trained",
        lost,
    )


def fine_tuned_claim(measured: Measured, claims: StatedClaims) -> Claim:
    """Judge a short fine-tuning with slopes divided by four, at four times the length."""
    name = "fine-tuned-reads-farther"
    recall = measured.recall
    tuned = recall["fine-tuned"][TRAINED][FAR]
    others = {
        "as much fine-tuning without the factor": recall["unscaled"][TRAINED][FAR],
        "slopes divided by four without training": recall["alibi"][LINEAR][FAR],
    }
    more = {other: Gain.of_shares(tuned, own) for other, own in others.items()}
    told = "; ".join(
        f"{fmean(own):.1%} with {other}: {more[other].worded('more', 'fewer')} of all"
        f"{power(more[other])}"
        for other, own in others.items()
    )
    learnt = measured.has_learnt(claims.limit(name, "learnt"))
    points = claims.limit(name, "points")
    return claims.judged(
        name,
        f"values recalled from the farther half of {FAR}x: {fmean(tuned):.1%} after fine-tuning "
        f"with slopes divided by four; {told}",
        held=learnt and all(own.exceeds(points) for own in more.values()),
        reading="" if learnt else "unlearnt",
    )


def sections_of(measured: Measured, length: int, figure: Figure | None) -> tuple[Section, ...]:
    """Return the tables of slopes, losses and recall."""
    losses_told = (
        f"Held-out nats per token at the last {length // 2} positions of windows of so many times "
        f"the {length} tokens trained at, mean over seeds; {SHORT}: of the same tokens, read in "
        f"windows of {length}."
    )
    text = Section("Text", [losses_told], [reach_table(measured.losses, "{:.4f}")])
    if figure is None:
        return (text,)
    slopes_told = (
        "A slope times a distance is the bias of that distance in nats. In the paper's models of "
        "2,048 tokens, the shallowest slope times the whole length is 8."
    )
    within = ", ".join(f"{arm} {fmean(own):.1%}" for arm, own in measured.within.items())
    recall_told = (
        "Share of values recalled from the farther half of the window, mean over seeds, and their "
        "loss in nats; chance is 10 %. Within the length trained at, at all distances: "
        f"{within}."
    )
    tables = [reach_table(measured.recall, "{:.1%}"), reach_table(measured.nats, "{:.4f}")]
    return (
        Section("Slopes", [slopes_told], [slope_table(length)]),
        Section("Recall", [recall_told], tables, [figure]),
        text,
    )


def slope_table(length: int) -> Table:
    """Return each head's slope, and its product with the lengths read."""
    settings = load_recipe("alibi-interpolation/small").recipe.model
    kind = settings.positions
    assert isinstance(kind, AlibiPositions)
    slopes = [
        kind.slope_multiplier * slope for slope in alibi_slopes(settings.n_heads, kind.max_exponent)
    ]
    return Table(
        ["slope", *(f"times {reach * length:,} tokens" for reach in REACHES)],
        [[f"{slope:g}", *(f"{slope * reach * length:g}" for reach in REACHES)] for slope in slopes],
    )


def reach_table(read: Read, form: str) -> Table:
    """Return a row for each arm and scaling: means over seeds."""
    rows = [
        [arm, scaling, *(form.format(fmean(by_reach[reach])) for reach in REACHES)]
        for arm, scalings in read.items()
        for scaling, by_reach in scalings.items()
    ]
    return Table(["arm", "positions", *(f"{reach}x" for reach in REACHES)], rows)


def recall_figure(measured: Measured, length: int) -> Figure:
    """Draw the share recalled over the length read, mean over seeds with its interval."""
    every = {
        (arm, scaling): [by_reach[reach] for reach in REACHES]
        for arm, scalings in measured.recall.items()
        for scaling, by_reach in scalings.items()
    }
    lines = [
        Series(
            f"{arm}, {scaling}",
            [reach * length for reach in REACHES],
            [fmean(shares) for shares in by_reach],
            "points",
            half_widths_of(by_reach),
        )
        for (arm, scaling), by_reach in every.items()
    ]
    (arm, scaling), best = max(every.items(), key=lambda each: fmean(each[1][-1]))
    title = (
        f"Read at {REACHES[-1]} times the trained length, {100 * fmean(best[-1]):.0f} % of the "
        f"farther half is recalled at best ({arm}, {scaling})"
    )
    ticks = {float(reach * length): f"{reach * length:g}" for reach in REACHES}
    return line_figure(
        title, lines, "tokens read", "share recalled, 95 % over seeds", log_x=True, ticks=ticks
    )
