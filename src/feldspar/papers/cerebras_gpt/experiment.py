"""Cerebras-GPT (2304.03208): a family at 20 tokens per parameter, its law, and muP beside SP.

SP's learning rate is tuned at every size, muP's on the smallest alone. The law of the SP family is
fitted to all sizes but the largest and judged on it; the paper's own points are fitted again too.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, pstdev

from feldspar.core.errors import UserError
from feldspar.core.student_t import half_width, t_quantile
from feldspar.papers.cerebras_gpt.family import (
    CONVENTION,
    PARAMETRIZATION,
    RATE,
    SCORE,
    Member,
    family_figure,
    family_tables,
    law_of,
    law_words,
    noise_of,
    of,
    rate_words,
    swept,
)
from feldspar.papers.cerebras_gpt.widths import (
    RATES_STAGE,
    SEEDS_STAGE,
    members_of,
    width_baselines,
    width_stages,
)
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.paper import (
    Data,
    Figures,
    Findings,
    Paper,
    Results,
    Scale,
    Stage,
    values_of,
)
from feldspar.papers.kit.rate_sweep import Cell, RateSweep, percent
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.kit.text_baselines import table_beside_baselines, text_baselines
from feldspar.plan.laws.law import CEREBRAS_GPT_MUP_POINTS, CEREBRAS_GPT_POINTS, compute_law
from feldspar.plan.laws.law_fit import LawFit, fit_law
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.study import Range
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial

SIZE = "choose.size"

MUP_SWEPT = 3
"""The number of smallest sizes that muP's rate is swept on; the first is the proxy."""
TWO_SEEDS = 4
"""The number of smallest sizes that get a second seed, for the noise of a run."""
PAPER_MUP = 5
"""The paper trained muP up to 2.7B."""
QUICK = ("phases.0.length=2 tokens_per_parameter",)
QUICK_RATES = 2


def recipe_of(scale: Scale) -> str:
    """Return the shipped recipe of a scale."""
    return "cerebras-gpt/paper" if scale is Scale.PAPER else "cerebras-gpt/small"


@cache
def sizes(scale: Scale) -> list[str]:
    """Return the sizes of the family, smallest first."""
    return list(load_recipe(recipe_of(scale)).recipe.choices["size"])


@cache
def rates(parametrization: str, scale: Scale) -> list[float]:
    """Return the rates of the recipe's study; for a quick run the inner ones."""
    study = load_recipe(recipe_of(scale), [f"{PARAMETRIZATION}={parametrization}"]).recipe.study
    assert study is not None, "the shipped recipe has a study"
    values = study.vary[RATE]
    assert isinstance(values, Range), "a range of rates"
    grid = list(values.grid())
    outside = (len(grid) - QUICK_RATES) // 2
    return grid[outside : outside + QUICK_RATES] if scale is Scale.QUICK else grid


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the sweep of rates, then the runs that the families still lack at chosen rates."""
    recipe = recipe_of(scale)
    if scale is Scale.PAPER:
        return (Stage("family", recipe, lambda _: paper_trials(), SCORE),)
    return (
        Stage("rates", recipe, lambda _: rate_trials(scale), SCORE),
        Stage("family", recipe, lambda results: family_trials(results, scale), SCORE),
        *width_stages(scale),
    )


def paper_trials() -> list[Trial]:
    """Return seven sizes of SP and five of muP, each at the paper's own rate."""
    names = sizes(Scale.PAPER)
    members = [("sp", size) for size in names] + [("mup", size) for size in names[:PAPER_MUP]]
    return [trial_of({PARAMETRIZATION: name, SIZE: size}, 0) for name, size in members]


def rate_trials(scale: Scale) -> list[Trial]:
    """Return SP at every size and muP at the smallest, at every rate; the longest runs first."""
    names = sizes(scale)
    return [
        member_trial(name, size, rate, 0, scale)
        for size in reversed(names)
        for name in ("sp", "mup")
        if name == "sp" or size in names[:MUP_SWEPT]
        for rate in rates(name, scale)
    ]


def family_trials(results: Results, scale: Scale) -> list[Trial]:
    """muP at the proxy's rate where it was not swept, and second seeds; the longest runs first."""
    names = sizes(scale)
    swept = {trial.name for trial in rate_trials(scale)}
    wanted = [
        member_trial(name, size, chosen_rate(results, name, size, scale), seed, scale)
        for size in reversed(names)
        for name in ("mup", "sp")
        for seed in ((0, 1) if scale is Scale.SMALL and size in names[:TWO_SEEDS] else (0,))
    ]
    return [trial for trial in wanted if trial.name not in swept]


def member_trial(name: str, size: str, rate: float, seed: int, scale: Scale) -> Trial:
    """Return one run of the family."""
    values = {PARAMETRIZATION: name, SIZE: size, RATE: rate}
    return trial_of(values, seed, QUICK if scale is Scale.QUICK else ())


def chosen_rate(results: Results, name: str, size: str, scale: Scale) -> float:
    """Return SP's best rate at this size, muP's at the smallest; without runs, one of the grid."""
    if "rates" not in results:
        return rates(name, scale)[0]
    tuned_at = sizes(scale)[0] if name == "mup" else size
    return sweep_of(results, scale).best(name, plan_of(tuned_at, scale).shapes.parameters).rate


def sweep_of(results: Results, scale: Scale) -> RateSweep:
    """Return loss over rate, one seed a cell; a variant is a count of parameters."""
    parameters = {size: plan_of(size, scale).shapes.parameters for size in sizes(scale)}
    cells = []
    for run in results["rates"]:
        values = values_of(run.trial)
        variant = parameters[values[SIZE]]
        cells.append(Cell(values[PARAMETRIZATION], variant, values[RATE], (run.score,)))
    return RateSweep(tuple(cells), min(parameters.values()))


@cache
def plan_of(size: str, scale: Scale) -> Plan:
    """Return the plan of a size."""
    shortened = QUICK if scale is Scale.QUICK else ()
    return plan_recipe(load_recipe(recipe_of(scale), [f"{SIZE}={size}", *shortened]).recipe)


def family_of(results: Results, scale: Scale) -> list[Member]:
    """Return each parametrization's sizes at the chosen rate, with every seed that was run."""
    members = []
    stages = [results[name] for name in ("rates", "family") if name in results]
    runs = [(values_of(run.trial), run) for stage in stages for run in stage]
    for size in sizes(scale):
        plan = plan_of(size, scale)
        flops = plan.flops()[CONVENTION]
        for name in ("sp", "mup"):
            own = [
                pair for pair in runs if (pair[0][PARAMETRIZATION], pair[0][SIZE]) == (name, size)
            ]
            if scale is not Scale.PAPER:
                rate = chosen_rate(results, name, size, scale)
                own = [pair for pair in own if pair[0][RATE] == rate]
            else:
                rate = plan.recipe.parametrization.learning_rate
            losses = tuple(run.score for _, run in own)
            if losses:
                members.append(Member(name, size, plan.shapes.parameters, flops, rate, losses))
    return members


def measure(results: Results, scale: Scale) -> Figures:
    """Read the losses of the stages that were run: families, sweeps of learning rate, widths."""
    found: Figures = {}
    if "family" in results:
        family = family_of(results, scale)
        found["family"] = [vars(member) | {"loss": member.loss} for member in family]
        if scale is not Scale.PAPER:
            cells = sweep_of(results, scale).cells
            found["rates"] = [vars(cell) | {"loss": cell.loss} for cell in cells]
    if SEEDS_STAGE in results:
        members = members_of(results, scale)
        found["widths"] = [vars(member) | {"loss": member.loss} for member in members]
    return found


def measure_without_runs(scale: Scale) -> Figures:
    """Return bits per byte without a model, by what the largest size and the widths read."""
    shortened = QUICK if scale is Scale.QUICK else ()
    largest = (f"{SIZE}={sizes(scale)[-1]}", *shortened)
    return {
        "baselines": text_baselines(recipe_of(scale), largest),
        "width_baselines": width_baselines(scale),
    }


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and the drawing."""
    family = [Member.from_dict(own) for own in figures["family"]]
    judged = [
        scatter_claim(claims),
        projection_claim(claims),
        mup_points_claim(claims),
        held_out_claim(of(family, "sp"), claims),
        law_claim(figures, scale, claims),
    ]
    sweep = None
    if scale is not Scale.PAPER:
        cells = tuple(map(Cell.from_dict, figures["rates"]))
        sweep = RateSweep(cells, min(cell.variant for cell in cells))
        judged += [mup_rate_claim(sweep, claims), sp_rate_claim(sweep, claims)]
    figure = family_figure(family)
    sections = [Section("The family", law_words(family), family_tables(family, sweep), [figure])]
    if "widths" in figures:
        members = [Member.from_dict(own) for own in figures["widths"]]
        tables = family_tables(members, None)
        sections.append(Section("Widths at equal tokens", [WIDTHS_WORDS], tables))
    return Findings(tuple(judged), tuple(sections), figure, baseline_tables(figures))


def baseline_tables(figures: Figures) -> tuple[Table, ...]:
    """Return the largest sizes, and the widths, each beside what needs no model."""
    groups = (
        ("family", "baselines", "held-out text, the largest sizes"),
        ("widths", "width_baselines", "held-out text, equal tokens"),
    )
    tables = []
    for members, baselines, what in groups:
        if members in figures and baselines in figures:
            own = [Member.from_dict(values) for values in figures[members]]
            losses = {f"{one.parametrization} {one.size}": one.loss for one in own[-4:]}
            tables.append(table_beside_baselines(losses, figures[baselines], what))
    return tuple(tables)


WIDTHS_WORDS = (
    "Two layers, the same tokens at every width, mean over the seeds. SP's rate is tuned at every "
    "width, muP's at the smallest, with a seed of its own."
)


def law_claim(figures: Figures, scale: Scale, claims: StatedClaims) -> Claim:
    """Judge muP by the law of SP: over the widths; at the paper's scale over its family."""
    if scale is Scale.PAPER:
        return mup_claim([Member.from_dict(own) for own in figures["family"]], claims)
    if "widths" not in figures:
        return claims.unrecorded("mup-below-the-law-of-sp")
    return mup_claim([Member.from_dict(own) for own in figures["widths"]], claims)


def scatter_claim(claims: StatedClaims) -> Claim:
    """Judge the published law beside the published losses."""
    name = "published-law-scatter"
    law = compute_law("cerebras-gpt").curve
    errors = [law.loss(point.flops) / point.loss - 1 for point in CEREBRAS_GPT_POINTS]
    std = pstdev(errors)
    return claims.judged(
        name,
        f"{std:.3%}, the published law at the published FLOPs and losses",
        held=abs(std - claims.limit(name, "figure")) <= claims.limit(name, "margin"),
    )


def projection_claim(claims: StatedClaims) -> Claim:
    """Judge the 13B loss by the law of the six smaller models, fitted here."""
    name = "projection-to-13b"
    fit = fit_law(CEREBRAS_GPT_POINTS)
    line = fit.judgement("power")[-1]
    curve = fit.judgement("power_plus_constant")[-1]
    return claims.judged(
        name,
        f"{line.predicted:.4f} against {line.observed:.3f} ({percent(1 + line.error, 2)}) by "
        f"the pure power law; {curve.predicted:.4f} ({percent(1 + curve.error, 2)}) by the law "
        "with a constant",
        held=min(abs(line.error), abs(curve.error)) <= claims.limit(name, "error"),
    )


def mup_points_claim(claims: StatedClaims) -> Claim:
    """Judge the published muP losses beside the published SP law."""
    name = "published-mup-gain"
    law = compute_law("cerebras-gpt").curve
    gaps = [point.loss / law.loss(point.flops) - 1 for point in CEREBRAS_GPT_MUP_POINTS]
    mean = sum(gaps) / len(gaps)
    return claims.judged(
        name,
        f"{percent(1 + mean, 2)} (+- {half_width(gaps):.2%}) on average, the published "
        "losses over the published law",
        held=abs(mean + claims.limit(name, "figure")) <= claims.limit(name, "margin"),
    )


def held_out_claim(members: Sequence[Member], claims: StatedClaims) -> Claim:
    """Judge the largest member of a trained family by the law of the others."""
    name = "law-predicts-the-largest"
    allowed = claims.limit(name, "at_paper_scale" if claims.at_paper_scale else "small")
    held = False
    try:
        fit = law_of(members)
    except UserError as error:
        ours = f"no law could be fitted: {error.what}"
    else:
        held = abs(fit.held_out.error) <= allowed
        ours = prediction_words(members[-1].size, fit)
    return claims.judged(name, ours, held=held, allowed=allowed, fitted=len(members) - 1)


def prediction_words(size: str, fit: LawFit) -> str:
    """Say how near each form of the law comes to the largest member."""
    last = fit.held_out
    others = [
        f"{percent(1 + fit.judgement(form)[-1].error, 2)} by the form {form}"
        for form in fit.judged
        if form != fit.form
    ]
    own = (
        f"{size}: predicted {last.predicted:.4f}, measured "
        f"{last.observed:.4f} ({percent(1 + last.error, 2)}) by the form {fit.form}, "
        f"{last.extrapolation:.1f} times the FLOPs of the largest fitted"
    )
    return "; ".join([own, interval_words(last.interval, last.inside), *others])


def interval_words(interval: tuple[float, float] | None, inside: bool | None) -> str:
    """Say whether the prediction interval holds the measured loss."""
    if interval is None:
        return "no prediction interval"
    low, high = interval
    return f"{'inside' if inside else 'outside'} the prediction interval {low:.4f} to {high:.4f}"


def mup_claim(family: Sequence[Member], claims: StatedClaims) -> Claim:
    """Judge muP with one rate for all sizes by the law of SP with a rate tuned for each."""
    name = "mup-below-the-law-of-sp"
    members = of(family, "mup")
    noise = noise_of(family) or claims.limit(name, "noise_of_a_run")
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
        close = claims.near(name, -mean)
        each = ", ".join(
            f"{m.size} {percent(1 + gap)}" for m, gap in zip(members, gaps, strict=True)
        )
        ours = (
            f"{percent(1 + mean, 2)} (+- {half:.2%}) on average ({each}), "
            f"base rate {members[0].rate:g} throughout"
        )
    return claims.judged(name, ours, held=held, near_figure=close, needed=needed)


def mup_rate_claim(sweep: RateSweep, claims: StatedClaims) -> Claim:
    """Judge that the best rate stays where it is with size under muP."""
    name = "rate-stays-mup"
    variants = swept(sweep, "mup")
    shifts = [abs(sweep.shift("mup", variant)) for variant in variants[1:]]
    return claims.judged(
        name,
        rate_words(sweep, "mup", variants),
        held=max(shifts) <= claims.limit(name, "octaves"),
        swept=len(variants),
    )


def sp_rate_claim(sweep: RateSweep, claims: StatedClaims) -> Claim:
    """Judge that the best rate falls with size under SP."""
    name = "rate-falls-sp"
    variants = swept(sweep, "sp")
    largest = variants[-1]
    kept, tuned = sweep.untuned("sp", largest).loss, sweep.best("sp", largest).loss
    return claims.judged(
        name,
        f"{rate_words(sweep, 'sp', variants)}; keeping the smallest size's rate at the largest "
        f"costs {percent(kept / tuned, 2)}",
        held=sweep.shift("sp", largest) <= -claims.limit(name, "octaves"),
    )


PAPER = Paper(
    name="cerebras-gpt",
    folder=Path(__file__).parent,
    data=Data("cerebras-gpt/small"),
    stages=stages,
    measure=measure,
    judge=judge,
    separate=frozenset((RATES_STAGE, SEEDS_STAGE)),
    measure_without_runs=measure_without_runs,
)
