"""A family of sizes under SP and muP, the law of its losses, and what it says of Cerebras-GPT."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.student_t import half_width, t_quantile
from feldspar.papers.kit.claims import Claim, judged, not_run
from feldspar.papers.kit.rate_sweep import Cell, RateSweep, octaves, percent, pooled_std
from feldspar.plan.laws.law import CEREBRAS_GPT_MUP_POINTS, CEREBRAS_GPT_POINTS, Point, compute_law
from feldspar.plan.laws.law_fit import LawFit, fit_law

NAMES = {"sp": "SP", "mup": "muP"}
PAPER_ERROR = 0.005
"""The paper's projection of its 13B model was within this share of the loss."""
SMALL_ERROR = 0.03
"""What is asked of a family of tiny models, whose embeddings dominate."""
PAPER_GAIN = 0.0043
"""How much lower than the law of SP the paper's muP models are, on average."""
SAME_GAIN = 0.0025
"""At the paper's scale, a gain that is this close to the paper's is the paper's."""
PAPER_NOISE = 0.0035
"""Run-to-run standard deviation in the paper, where ours was not measured."""


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
    """The members under one parametrization, smallest first."""
    own = [member for member in family if member.parametrization == name]
    return sorted(own, key=lambda member: member.flops)


def law_of(members: Sequence[Member]) -> LawFit:
    """The law of a family, judged on its largest member. Raises UserError as ``fit_law`` does."""
    return fit_law([Point(member.flops, member.loss) for member in members])


def noise_of(family: Sequence[Member]) -> float | None:
    """Relative std over seeds, pooled over the sizes that had several; None where none had."""
    return pooled_std(member.relative_std for member in family)


def claims(family: Sequence[Member], sweep: RateSweep | None, cost: str) -> list[Claim]:
    """The paper's claims. Without a sweep the family is the paper's own, at its own rates."""
    own = sweep is None
    return [
        scatter_claim(),
        projection_claim(),
        mup_points_claim(),
        held_out_claim(of(family, "sp"), cost, at_paper_scale=own),
        mup_claim(family, cost, at_paper_scale=own),
        *([] if sweep is None else rate_claims(sweep, cost)),
        not_run(
            "downstream",
            statement="muP models are better on downstream tasks too.",
            paper="+1.7 % relative mean accuracy",
            reason="Models of this size are at chance on these tasks.",
            cost=cost,
        ),
    ]


def scatter_claim() -> Claim:
    """The published law beside the published losses."""
    law = compute_law("cerebras-gpt").curve
    errors = [law.loss(point.flops) / point.loss - 1 for point in CEREBRAS_GPT_POINTS]
    std = population_std(errors)
    return judged(
        "published-law-scatter",
        statement="The losses of the seven SP models deviate from one law by little.",
        paper="standard deviation 0.66 %",
        ours=f"{std:.3%}, the published law at the published FLOPs and losses",
        tolerance="within 0.01 percentage points",
        held=abs(std - 0.0066) <= 1e-4,
        same_quantity=True,
        why="Computed from the paper's printed numbers; nothing was trained for it.",
        why_not="The printed numbers give another figure.",
        counted=True,
    )


def projection_claim() -> Claim:
    """The 13B loss from the law of the six smaller models, fitted here."""
    fit = fit_law(CEREBRAS_GPT_POINTS)
    line = fit.judgement("power")[-1]
    curve = fit.judgement("power_plus_constant")[-1]
    return judged(
        "projection-to-13b",
        statement="The loss of the 13B model was within 0.5 % of a projection from sizes up to "
        "6.7B.",
        paper="within 0.5 %",
        ours=f"{line.predicted:.4f} against {line.observed:.3f} ({percent(1 + line.error, 2)}) by "
        f"the pure power law; {curve.predicted:.4f} ({percent(1 + curve.error, 2)}) by the law "
        "with a constant",
        tolerance="the form that comes closer within 0.5 %",
        held=min(abs(line.error), abs(curve.error)) <= PAPER_ERROR,
        same_quantity=True,
        why="Fitted here to the paper's six smaller models; nothing was trained for it. The form "
        "was chosen by this very error, and the other form misses by more than the paper says.",
        why_not="Neither form comes that close.",
        counted=True,
    )


def mup_points_claim() -> Claim:
    """The published muP losses beside the published SP law."""
    law = compute_law("cerebras-gpt").curve
    gaps = [point.loss / law.loss(point.flops) - 1 for point in CEREBRAS_GPT_MUP_POINTS]
    mean = sum(gaps) / len(gaps)
    return judged(
        "published-mup-gain",
        statement="The five muP models lie below the SP law.",
        paper="0.43 % lower on average",
        ours=f"{percent(1 + mean, 2)} (+- {half_width(gaps):.2%}) on average, the published "
        "losses over the published law",
        tolerance="within 0.01 percentage points",
        held=abs(mean + PAPER_GAIN) <= 1e-4,
        same_quantity=True,
        why="Computed from the paper's printed numbers; nothing was trained for it.",
        why_not="The printed numbers give another figure.",
        counted=True,
    )


def held_out_claim(members: Sequence[Member], cost: str, *, at_paper_scale: bool) -> Claim:
    """The largest member of a trained family from the law of the others."""
    allowed = PAPER_ERROR if at_paper_scale else SMALL_ERROR
    held = False
    try:
        fit = law_of(members)
    except UserError as error:
        ours = f"no law could be fitted: {error.what}"
    else:
        last = fit.held_out
        held = abs(last.error) <= allowed
        others = [
            f"{percent(1 + fit.judgement(form)[-1].error, 2)} by the form {form}"
            for form in fit.judged
            if form != fit.form
        ]
        ours = "; ".join(
            [
                (
                    f"{members[-1].size}: predicted {last.predicted:.4f}, measured "
                    f"{last.observed:.4f} ({percent(1 + last.error, 2)}) by the form {fit.form}, "
                    f"{last.extrapolation:.1f} times the FLOPs of the largest fitted"
                ),
                interval_words(last.interval, last.inside),
                *others,
            ]
        )
    return judged(
        "law-predicts-the-largest",
        statement="A law fitted to the smaller sizes of a family at 20 tokens per parameter "
        "predicts the largest.",
        paper="within 0.5 % (13B)",
        ours=ours,
        tolerance=f"within {allowed:.1%}; the interval is printed and does not count, since noise "
        "would widen it",
        held=held,
        same_quantity=at_paper_scale,
        why=f"{len(members) - 1} sizes fitted, the largest held out; the interval of so few is "
        "rough.",
        why_not="The largest size is not where the law of the others puts it.",
        cost=cost,
    )


def mup_claim(family: Sequence[Member], cost: str, *, at_paper_scale: bool) -> Claim:
    """muP with one rate for all sizes beside the law of SP with a rate tuned for each."""
    members = of(family, "mup")
    noise = noise_of(family) or PAPER_NOISE
    count = len(members)
    needed = t_quantile(count - 1) * noise / math.sqrt(count) if count > 1 else math.inf
    held = close = False
    try:
        law = law_of(of(family, "sp"))
    except UserError as error:
        ours = f"no law of SP could be fitted: {error.what}"
    else:
        gaps = [member.loss / law.predict(member.flops) - 1 for member in members]
        mean = fmean(gaps)
        # Sizes scatter around the law by more than seeds do: that is what the mean has to exceed.
        half = half_width(gaps) or 0.0
        needed = max(needed, half)
        held = mean < -needed
        close = abs(mean + PAPER_GAIN) <= SAME_GAIN
        each = ", ".join(
            f"{m.size} {percent(1 + gap)}" for m, gap in zip(members, gaps, strict=True)
        )
        ours = (
            f"{percent(1 + mean, 2)} (+- {half:.2%}) on average ({each}), "
            f"base rate {members[0].rate:g} throughout"
        )
    return judged(
        "mup-below-the-law-of-sp",
        statement="muP with one learning rate for all sizes is below the law of SP, whose rate "
        "was tuned at every size.",
        paper="0.43 % lower on average",
        ours=ours,
        tolerance=f"lower by more than {needed:.2%}, half the 95% interval of the mean over sizes",
        held=held,
        same_quantity=at_paper_scale and close,
        why="muP's rate was tuned on the smallest size alone.",
        why_not="The sizes scatter around the law of SP by more than the mean difference.",
        cost=cost,
    )


def rate_claims(sweep: RateSweep, cost: str) -> list[Claim]:
    """Where the best rate goes with size: under muP nowhere, under SP down."""
    mup, sp = swept(sweep, "mup"), swept(sweep, "sp")
    mup_shifts = [sweep.shift("mup", variant) for variant in mup[1:]]
    kept, tuned = sweep.untuned("sp", sp[-1]).loss, sweep.best("sp", sp[-1]).loss
    return [
        judged(
            "rate-stays-mup",
            statement="Under muP the rate tuned on a small proxy is the best one for wider models.",
            paper="one rate, 6e-3, from 111M to 2.7B",
            ours=rate_words(sweep, "mup", mup),
            tolerance="at most 1 octave (one step of the grid) at every size",
            held=max(map(abs, mup_shifts)) <= 1,
            same_quantity=False,
            why=f"Swept at the {len(mup)} smallest sizes; muP says nothing of run length, which "
            "grows with size here.",
            why_not="The best rate moved with size; run length, which muP says nothing of, grows "
            "with it.",
            cost=cost,
        ),
        judged(
            "rate-falls-sp",
            statement="Under SP the best learning rate falls with size.",
            paper="6e-4 at 111M, 2e-4 at 1.3B, 1.2e-4 at 13B",
            ours=f"{rate_words(sweep, 'sp', sp)}; keeping the smallest size's rate at the largest "
            f"costs {percent(kept / tuned, 2)}",
            tolerance="at least 1 octave down at the largest size",
            held=sweep.shift("sp", sp[-1]) <= -1,
            same_quantity=False,
            why="Tuned at every size on one grid.",
            why_not="The widths here differ too little for it.",
            cost=cost,
        ),
    ]


def swept(sweep: RateSweep, name: str) -> list[float]:
    """The variants that were swept under a parametrization, smallest first."""
    return [variant for variant in sorted(sweep.variants) if sweep.row(name, variant)]


def rate_words(sweep: RateSweep, name: str, variants: Sequence[float]) -> str:
    """The best rate at the smallest size, and the way from it to each other's."""

    def edge(variant: float) -> str:
        return " (edge of the grid)" if sweep.is_edge(name, variant) else ""

    first = variants[0]
    each = ", ".join(
        f"{octaves(sweep.shift(name, variant))} at {variant:,}{edge(variant)}"
        for variant in variants[1:]
    )
    rate = math.log2(sweep.best(name, first).rate)
    return f"best 2^{rate:g} at {first:,} parameters{edge(first)}; from there {each}"


def interval_words(interval: tuple[float, float] | None, inside: bool | None) -> str:
    """The prediction interval, and whether it holds what was measured."""
    if interval is None:
        return "no prediction interval"
    low, high = interval
    return f"{'inside' if inside else 'outside'} the prediction interval {low:.4f} to {high:.4f}"


def population_std(values: Sequence[float]) -> float:
    """The standard deviation of all there are."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
