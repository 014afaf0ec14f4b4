"""The claims on fine-tuned models, by right answers to held-out statements, paired by seed."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from feldspar.core.student_t import half_width
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import POWER, Gain
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.mediswift.arms import (
    MASKS_KEPT,
    NOT_PRETRAINED,
    PRETRAINED,
    PRETRAINING_RATES,
    TUNING_RATES,
)
from feldspar.papers.mediswift.labels import MOST_FREQUENT
from feldspar.papers.mediswift.rates import Curve, Curves, RateSearch, best_rate
from feldspar.papers.mediswift.time_arms import DENSE, HALF, SMALL_DENSE, SPARSE
from feldspar.papers.mediswift.time_claims import BySeed
from feldspar.report.bars import Bar, bar_figure
from feldspar.report.canvas import Figure
from feldspar.report.page import Table

LEVEL, FREED = "sparse-then-dense-is-level", "dense-fine-tuning-helps"
SMALLER = "sparse-beats-small-dense"
"""The claims by their names."""
TUNED = "each arm with its own learning rates"


def level_claim(
    accuracies: BySeed, without_a_model: Mapping[str, float], claims: StatedClaims
) -> Claim:
    """Judge sparse pre-training where fine-tuning is dense.

    ``without_a_model`` holds the accuracies of simple baselines.
    """
    close, learned = claims.limit(LEVEL, "close"), claims.limit(LEVEL, "learned")
    dense, most_frequent = fmean(accuracies[DENSE]), without_a_model[MOST_FREQUENT]
    has_learned = dense > most_frequent + learned
    is_easy = max(without_a_model.values()) > dense - close
    differences = {arm: paired(accuracies[arm], accuracies[DENSE]) for arm in (HALF, SPARSE)}
    held = has_learned and all(lowest(own) >= -close for own in differences.values())
    told = ", ".join(f"{arm} {shown(values)}" for arm, values in accuracies.items())
    beside = ", ".join(f"{label} {value:.1%}" for label, value in without_a_model.items())
    against = ", ".join(f"{arm} {signed(own)}" for arm, own in differences.items())
    helped = paired(accuracies[DENSE], accuracies[NOT_PRETRAINED])
    reading = "" if has_learned else "nothing_learned"
    return claims.judged(
        LEVEL,
        f"right answers to held-out statements: {told}; without a model: {beside}; "
        f"against dense: {against}; dense pre-training adds {signed(helped)}; {TUNED}",
        held=held,
        reading="held_on_an_easy_task" if held and is_easy else reading,
        short=f"right answers of dense {shown(accuracies[DENSE])}; {against}",
        close_points=100 * close,
        learned_points=100 * learned,
        most_frequent=most_frequent,
    )


def dense_tuning_claim(accuracies: BySeed, claims: StatedClaims) -> Claim:
    """Judge dense fine-tuning of a sparse model against masks that stay."""
    freed = paired(accuracies[SPARSE], accuracies[MASKS_KEPT])
    return claims.judged(
        FREED,
        f"75 % sparse, fine-tuned dense {shown(accuracies[SPARSE])}, with its masks "
        f"{shown(accuracies[MASKS_KEPT])}: {signed(freed)}; {TUNED}",
        held=len(freed) > 1 and lowest(freed) > 0,
    )


def small_dense_claim(bits: BySeed, accuracies: BySeed, claims: StatedClaims) -> Claim:
    """Judge a wide sparse model against a narrow dense one with as many weights in its blocks."""
    gain = Gain.of(bits[SPARSE], bits[SMALL_DENSE])
    answers = paired(accuracies[SPARSE], accuracies[SMALL_DENSE])
    return claims.lower(
        SMALLER,
        f"after pre-training on the same tokens {fmean(bits[SPARSE]):.4f} held-out bits per "
        f"byte at 75 %, {fmean(bits[SMALL_DENSE]):.4f} of the dense model with its block weights "
        f"({gain.lower_or_higher}); right answers {shown(accuracies[SPARSE])} and "
        f"{shown(accuracies[SMALL_DENSE])}, {signed(answers)}; {TUNED}",
        gain,
    )


def arm_table(
    bits: BySeed,
    accuracies: BySeed,
    beside: Mapping[str, float],
    pretraining: Curves,
    tuning: Curves,
) -> Table:
    """Return a row for each arm, with its rates, and for each rule without a model."""
    rows = [
        [
            name,
            f"{fmean(bits[name]):.4f}" if name in bits else "",
            shown(values),
            "" if name == DENSE else signed(paired(values, accuracies[DENSE])),
            chosen(pretraining[name], PRETRAINING_RATES) if name in PRETRAINED else "",
            chosen(tuning[name], TUNING_RATES),
        ]
        for name, values in accuracies.items()
    ]
    rows += [[name, "", f"{value:.1%}", "", "", ""] for name, value in beside.items()]
    heads = ["arm", "bits per byte", "right answers", "against dense"]
    return Table([*heads, "rate of pre-training", "of fine-tuning"], rows)


def rate_table(curves: Curves, search: RateSearch, what: str) -> Table:
    """Return the scores of every rate that was tried, an arm a row; ``what`` names the score."""
    rows = [
        [arm, *(f"{found[rate]:.4f}" if rate in found else "" for rate in search.rates)]
        for arm, curve in curves.items()
        for found in [dict(curve)]
    ]
    return Table([what, *(f"{rate:g}" for rate in search.rates)], rows)


def chosen(curve: Curve, search: RateSearch) -> str:
    """Return the rate that was chosen; the edge of what was tried is marked."""
    return f"{best_rate(curve):g}" + (" (edge)" if search.is_edge(curve) else "")


def accuracy_figure(accuracies: BySeed, beside: Mapping[str, float]) -> Figure:
    """Draw the share of right answers by arm."""
    percents = {name: [100 * value for value in own] for name, own in accuracies.items()}
    bars = [Bar(name, fmean(values), half_width(values)) for name, values in percents.items()]
    bars += [Bar(name, 100 * value, is_reference=True) for name, value in beside.items()]
    return bar_figure("Directions of held-out statements", bars, "% right, 95 % over seeds")


def paired(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the differences seed by seed."""
    return [own - other for own, other in zip(values, others, strict=True)]


def lowest(values: Sequence[float]) -> float:
    """Return the lower end of the mean's 95 % interval; for one seed, which has none, its value."""
    return fmean(values) - (half_width(values) or 0.0)


def shown(values: Sequence[float]) -> str:
    """Word a mean share and half its 95 % interval."""
    half = half_width(values)
    spread = "one seed" if half is None else f"+- {half:.1%}"
    return f"{fmean(values):.1%} ({spread})"


def signed(differences: Sequence[float]) -> str:
    """Word a mean difference in points, half its 95 % interval, and what the design finds."""
    half, found = half_width(differences), half_width(differences, 2 * POWER - 1)
    mean = f"{fmean(differences) * 100:+.1f} points"
    if half is None or found is None:
        return f"{mean} (one seed)"
    return (
        f"{mean} (+- {half * 100:.1f}) (a true difference of {(half + found) * 100:.1f} points is "
        f"found in {POWER:.0%} of cases)"
    )
