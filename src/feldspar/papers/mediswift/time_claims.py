"""The claims on time, by the losses of arms that are pre-trained for the same time."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.mediswift.time_arms import DENSE, SMALL_DENSE, SPARSE
from feldspar.papers.mediswift.time_to_loss import Pretraining, steps_saved, time_saved
from feldspar.report.canvas import Figure
from feldspar.report.figures import Panel, Series, half_widths_of, panel_figure
from feldspar.report.page import Table

BySeed = Mapping[str, Sequence[float]]
"""A figure of each seed, by arm."""


def time_claim(
    arms: Mapping[str, Pretraining], step_seconds: Mapping[str, float], claims: StatedClaims
) -> Claim:
    """Judge how soon 75 % in blocks has the loss that the dense arm ends with."""
    name, dense = "time-saved", arms[DENSE]
    gains = {arm: time_saved(own, dense) for arm, own in arms.items() if arm != DENSE}
    gain = gains[SPARSE]
    told = ", ".join(f"{arm} {saved_in_words(own)}" for arm, own in gains.items())
    steps = {arm: steps_saved(own, dense) for arm, own in arms.items() if arm != DENSE}
    fewer = ", ".join(f"{arm} {saved_in_words(own)}" for arm, own in steps.items())
    speeds = ", ".join(
        f"{arm} {step_seconds[DENSE] / own:.2f}"
        for arm, own in step_seconds.items()
        if arm != DENSE
    )
    return claims.judged(
        name,
        f"processor time to the dense arm's final loss, against its {dense.seconds[-1]:.0f} s: "
        f"{told}; steps to it: {fewer}; a step is this many times as fast as a dense one: "
        f"{speeds}; at the end: "
        f"{losses_in_words(arms)}; one learning rate for all arms",
        held=gain is not None and gain.exceeds(claims.limit(name, "noise")),
    )


def small_dense_in_time_claim(arms: Mapping[str, Pretraining], claims: StatedClaims) -> Claim:
    """Judge a wide sparse model against a narrow dense one that trains for the same time."""
    wide, narrow = arms[SPARSE], arms[SMALL_DENSE]
    gain = Gain.of(wide.final, narrow.final)
    return claims.lower(
        "sparse-beats-small-dense-in-time",
        f"{fmean(wide.final):.4f} held-out bits per byte at 75 % after {wide.tokens:,} tokens in "
        f"{wide.seconds[-1]:.0f} s, {fmean(narrow.final):.4f} of the dense model with its block "
        f"weights after {narrow.tokens:,} tokens in {narrow.seconds[-1]:.0f} s "
        f"({gain.lower_or_higher}); one learning rate for all arms",
        gain,
    )


def saved_in_words(gain: Gain | None) -> str:
    """Word the share of time or steps that an arm saves."""
    return "never has it" if gain is None else gain.worded("less", "more")


def losses_in_words(arms: Mapping[str, Pretraining]) -> str:
    """Word the final losses of the arms, and the gains over the dense one."""
    dense = arms[DENSE].final
    told = [f"{DENSE} {fmean(dense):.4f} bits per byte"]
    for arm, own in arms.items():
        if arm != DENSE:
            gain = Gain.of(own.final, dense).lower_or_higher
            told.append(f"{arm} {fmean(own.final):.4f} after {own.seconds[-1]:.0f} s, {gain}")
    return ", ".join(told)


def time_table(arms: Mapping[str, Pretraining]) -> Table:
    """Return a row for each arm of equal time."""
    rows = [
        [
            name,
            f"{own.tokens:,}",
            f"{own.step_seconds:.3f}",
            f"{own.clock_seconds:.3f}",
            f"{own.seconds[-1]:.1f}",
            f"{fmean(own.final):.4f}",
        ]
        for name, own in arms.items()
    ]
    columns = ["arm", "tokens", "s a step", "on the clock, beside a run", "s", "bits per byte"]
    return Table(columns, rows)


def time_figure(
    arms: Mapping[str, Pretraining],
    arm_seconds: Mapping[str, float],
    accuracies: Mapping[str, Sequence[float]],
) -> Figure:
    """Draw losses along pre-training for equal time, and accuracies of equal tokens, by time."""
    shared = [name for name in arms if name in accuracies]  # so that colours agree
    others = [name for name in accuracies if name not in arms]
    colours = {name: number for number, name in enumerate([*arms, *others])}
    losses = [
        Series(
            label_of(name), own.seconds, own.mean_curve, "points",
            is_reference=name == DENSE, colour=colours[name],
        )
        for name, own in arms.items()
    ]  # fmt: skip
    labels = [
        Series(
            label_of(name), [arm_seconds[name]], [100 * fmean(accuracies[name])], "markers",
            half_widths_of([[100 * share for share in accuracies[name]]]),
            is_reference=name == DENSE, colour=colours[name],
        )
        for name in (*shared, *others)
    ]  # fmt: skip
    ends = [f"{label_of(name)} {fmean(own.final):.3f}" for name, own in arms.items()]
    return panel_figure(
        f"Bits per byte after pre-training for the same time: {', '.join(ends)}",
        [
            Panel(losses, "s of pre-training, width 256", "bits per byte"),
            Panel(labels, "s of all training, width 96", "% right answers, 95 % over seeds"),
        ],
    )


def label_of(arm: str) -> str:
    """Return the name of an arm for readers: a percentage is its sparsity."""
    share, sign, rest = arm.partition("%")
    return f"{share}\u00a0% sparse{rest}" if sign else arm  # not split from its sign
