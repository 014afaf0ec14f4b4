"""SmuPar (2405.15743): the best learning rate at every density, under SP, muP and SmuPar.

The experiment is the ``study`` of the recipe: loss over the grid parametrization x sparsity x
learning rate. Rates are tuned on the dense model; then it is made sparse.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any

from feldspar.core.student_t import unpaired_half_width
from feldspar.papers.kit.claims import Claim, judged, not_run
from feldspar.papers.kit.cost import on_accelerators, run_cost
from feldspar.papers.kit.ladder import Gain
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
from feldspar.papers.kit.rate_sweep import Cell, RateSweep, octaves
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.study import Range
from feldspar.report.figures import Figure, Series, line_figure
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial

PARAMETRIZATION = "choose.parametrization"
SPARSITY = "phases.0.sparsity.sparsity"
RATE = "parametrization.learning_rate"
NAMES = {"sp": "SP", "mup": "muP", "supar": "SmuPar"}
QUICK_STEPS = 50
DENSE = 1.0
LOWEST = "1/128"
"""The lowest density of the paper's 610M models."""

STAYS_OCTAVES = 1.0
"""Within one step of the grid an optimum has stayed ..."""
MOVES_OCTAVES = 3.0
"""... and from three on it has moved."""
SAME_FIGURE = 0.02
"""At the paper's scale, a gain within two percentage points of the paper's is the paper's."""
LEAST_NOISE = 0.01
"""Differences below this share of the loss are noise of the seed at small scale."""
SP_SWEEP_STD = 0.08665602 / 4
"""SP's initial std in the paper's sweeps (table 4): what muP gives at 16 times the base width."""
PAIRED_LATER = (
    "The pairing of seeds was decided after these runs' figures were seen. The first judgement did "
    "not pair them: 4.1 % on average, with the rate tuned anew, lay within a noise of 5.2 % and "
    "was not shown. Each claim on such rates prints the unpaired figure beside the paired one."
)


def recipe_of(scale: Scale) -> str:
    """The shipped recipe of a scale."""
    return "supar/paper" if scale is Scale.PAPER else "supar/small"


def grid(scale: Scale) -> tuple[list[dict[str, Any]], int]:
    """The values of each point of the recipe's study, and the number of seeds."""
    study = load_recipe(recipe_of(scale)).recipe.study
    assert study is not None, "the shipped recipe has a study"
    values = {
        key: list(item.grid() if isinstance(item, Range) else item)
        for key, item in study.vary.items()
    }
    quick = scale is Scale.QUICK
    if quick:
        values[SPARSITY] = [values[SPARSITY][0], values[SPARSITY][-1]]
    points = [dict(zip(values, point, strict=True)) for point in product(*values.values())]
    # At density 1 SmuPar's table is muP's, entry by entry.
    points = [p for p in points if p[PARAMETRIZATION] != "supar" or p[SPARSITY] > 0]
    return points, 1 if quick else study.seeds


def sweep_trials(scale: Scale) -> list[Trial]:
    """A trial for each point and seed, seeds fastest."""
    points, seeds = grid(scale)
    trials = []
    for point in points:
        overrides = [f"phases.0.length={QUICK_STEPS} steps"] if scale is Scale.QUICK else []
        if scale is Scale.PAPER:
            overrides.append("choose.experiment=sweep")
            if point[PARAMETRIZATION] == "sp":
                overrides.append(f"parametrization.init_std={SP_SWEEP_STD}")
        trials += [trial_of(point, seed, overrides) for seed in range(seeds)]
    return trials


def large_grid() -> list[tuple[str, str]]:
    """Parametrization and density of the paper's 610M models."""
    densities = load_recipe("supar/paper").recipe.choices["density"]
    pairs = product(NAMES, densities)
    return [(name, density) for name, density in pairs if (name, density) != ("supar", "dense")]


def large_trials() -> list[Trial]:
    """The paper's 610M models, each at the rate that was tuned dense."""
    return [
        trial_of({PARAMETRIZATION: name, "choose.density": density}, 0)
        for name, density in large_grid()
    ]


def stages(scale: Scale) -> tuple[Stage, ...]:
    """The sweep; at the paper's scale the 610M models too."""
    sweep = Stage("sweep", recipe_of(scale), lambda _: sweep_trials(scale))
    if scale is not Scale.PAPER:
        return (sweep,)
    return sweep, Stage("610M", recipe_of(scale), lambda _: large_trials())


def measure(results: Results, scale: Scale) -> Figures:
    """Read the sweep's cells; at the paper's scale the losses of the 610M models too.

    The cells of SmuPar at density 1 are muP's.
    """
    losses: dict[tuple[str, float, float], list[float]] = {}
    for run in results["sweep"]:
        values = values_of(run.trial)
        key = (values[PARAMETRIZATION], 1 - values[SPARSITY], values[RATE])
        losses.setdefault(key, []).append(run.score)
    dense = {("supar", *key[1:]): own for key, own in losses.items() if key[:2] == ("mup", DENSE)}
    cells = [Cell(*key, tuple(own)) for key, own in (losses | dense).items()]
    figures: Figures = {"cells": [vars(cell) | {"loss": cell.loss} for cell in cells]}
    if "610M" in results:
        runs = zip(large_grid(), results["610M"], strict=True)
        figures["610M"] = {name: [run.score] for (name, density), run in runs if density == LOWEST}
    return figures


def judge(figures: Figures, scale: Scale) -> Findings:
    """Make claims, tables and drawings."""
    sweep = RateSweep(tuple(map(Cell.from_dict, figures["cells"])), DENSE)
    cost = on_accelerators([run_cost("supar/paper", trial) for trial in large_trials()])
    untuned = figures.get("610M", untuned_losses(sweep))
    found = claims(sweep, untuned, cost, at_paper_scale=scale is Scale.PAPER)
    section = Section(
        "Loss by learning rate",
        [
            (
                "Mean training loss over the last fifth of the steps, nats per byte; the best rate "
                "of each density is marked *, a run that diverged has no loss. At density 1 SmuPar "
                "is muP."
            ),
            (
                "Gains are paired by seed: another seed reads another text, which moves all losses "
                "alike. Less than 1 % counts as noise in any case."
            ),
        ],
        [loss_table(sweep, name) for name in NAMES],
        [curves(sweep, name) for name in NAMES],
    )
    notes = (PAIRED_LATER,) if scale is Scale.SMALL else ()
    return Findings(tuple(found), (section,), optimum_figure(sweep), notes)


def untuned_losses(sweep: RateSweep) -> dict[str, Sequence[float]]:
    """The loss at the highest sparsity by seed, with the rate that was tuned dense."""
    sparsest = min(sweep.variants)
    return {name: sweep.untuned(name, sparsest).losses for name in NAMES}


def claims(
    sweep: RateSweep,
    untuned: Mapping[str, Sequence[float]],
    cost: str,
    *,
    at_paper_scale: bool = False,
) -> list[Claim]:
    """The paper's claims, judged by a sweep and by the losses of the sparsest untuned models."""
    density = LOWEST if at_paper_scale else fraction(min(sweep.variants))
    return [
        *optimum_claims(sweep, at_paper_scale),
        *untuned_claims(untuned, density, cost, at_paper_scale),
        *retuned_claims(sweep, cost, at_paper_scale),
        not_run(
            "downstream",
            statement="Mean of five downstream tasks at 99.2 % sparsity: SmuPar above SP and muP.",
            paper="0.40 against 0.34 and 0.39 (random 0.30)",
            reason="A model of this size is at chance on all five.",
            cost=cost,
        ),
    ]


def optimum_claims(sweep: RateSweep, at_paper_scale: bool) -> list[Claim]:
    """Where the best rate goes as density falls."""
    sparse = [density for density in sweep.variants if density != DENSE]
    lowest = min(sparse)
    stays = max(abs(sweep.shift("supar", density)) for density in sparse)
    shifts = ", ".join(f"{fraction(d)}: {sweep.shift('supar', d):+g}" for d in sparse)
    found = [
        judged(
            "optimum-stays-supar",
            statement="Under SmuPar the best learning rate is the same at every density.",
            paper="near 2^-6 from 0 to 99.2 % sparsity",
            ours=f"dense best {power(sweep.best('supar', DENSE).rate)}; octaves from it at density "
            f"{shifts}",
            tolerance=f"at most {STAYS_OCTAVES:g} octave (one step of the grid) at every density",
            held=stays <= STAYS_OCTAVES,
            same_quantity=at_paper_scale,
            why=f"The largest shift is {stays:g}: a rate tuned dense serves every density.",
            why_not=f"The largest shift is {stays:g}.",
        )
    ]
    for name in ("mup", "sp"):
        shift = sweep.shift(name, lowest)
        edge = sweep.is_edge(name, lowest) or sweep.is_edge(name, DENSE)
        found.append(
            judged(
                f"optimum-moves-{name}",
                statement=f"Under {NAMES[name]} the best learning rate rises as density falls.",
                paper="drifts upward with sparsity",
                ours=f"from {power(sweep.best(name, DENSE).rate)} dense to "
                f"{power(sweep.best(name, lowest).rate)} at density {fraction(lowest)}: "
                f"{octaves(shift, edge)}",
                tolerance=f"at least {MOVES_OCTAVES:g} octaves up at density {fraction(lowest)}",
                held=shift >= MOVES_OCTAVES,
                same_quantity=at_paper_scale,
                why="A sparse neuron sums fewer inputs, so that the same rate moves it less.",
                why_not="The best rate moved less than that.",
            )
        )
    return found


def untuned_claims(
    untuned: Mapping[str, Sequence[float]], density: str, cost: str, at_paper_scale: bool
) -> list[Claim]:
    """The loss of the sparsest model with the dense model's hyper-parameters."""
    found = []
    for name, figure in (("sp", 0.119), ("mup", 0.019)):
        gain = Gain.of(untuned["supar"], untuned[name], LEAST_NOISE)
        found.append(
            judged(
                f"untuned-loss-{name}",
                statement="With dense-tuned hyper-parameters the sparsest SmuPar model is better "
                f"than {NAMES[name]}'s.",
                paper=f"{100 * figure:g} % lower loss at 99.2 % sparsity (610M)",
                ours=f"{gain.lower_or_higher} at density {density}: {fmean(untuned['supar']):.3f} "
                f"against {fmean(untuned[name]):.3f}",
                tolerance=f"lower by {gain.needed}",
                held=gain.is_clear,
                same_quantity=at_paper_scale and is_close(gain, figure),
                why="Where the rate was tuned dense, only SmuPar's still fits the sparse model."
                + ("" if at_paper_scale else " Another model and sparsity: other percentages."),
                why_not="The gain is not above the noise.",
                cost=cost,
            )
        )
    return found


def retuned_claims(sweep: RateSweep, cost: str, at_paper_scale: bool) -> list[Claim]:
    """The best loss of each density with the rate tuned anew, over all sparse densities."""
    sparse = [density for density in sweep.variants if density != DENSE]
    lowest = min(sparse)
    found = []
    for name, figure in (("sp", 0.008), ("mup", 0.021)):
        gains = {
            density: Gain.of(
                sweep.best("supar", density).losses, sweep.best(name, density).losses, LEAST_NOISE
            )
            for density in sparse
        }
        by_seed = zip(*(gain.by_seed for gain in gains.values()), strict=True)
        mean = Gain(tuple(map(fmean, by_seed)), LEAST_NOISE)
        ours, other = sweep.best("supar", lowest).loss, sweep.best(name, lowest).loss
        found.append(
            judged(
                f"retuned-loss-{name}",
                statement=f"Even with {NAMES[name]}'s rate tuned anew at every density SmuPar's "
                "best loss is lower.",
                paper=f"{100 * figure:g} % lower on average",
                ours=f"{mean.lower_or_higher} on average over {len(sparse)} "
                f"{'density' if len(sparse) == 1 else 'densities'}; at {fraction(lowest)} "
                f"{gains[lowest].lower_or_higher}, {ours:.3f} against {other:.3f}; "
                f"{unpaired(sweep, name, sparse)}",
                tolerance=f"lower by {mean.needed}",
                held=mean.is_clear,
                same_quantity=at_paper_scale and is_close(mean, figure),
                why="At its best rate too SmuPar's initial values and rates suit sparse matrices.",
                why_not="What SmuPar saves is the tuning: a rate tuned at each density can match "
                "or beat it on a small model."
                if mean.mean <= LEAST_NOISE
                else "So few seeds do not tell this difference from noise.",
                cost=cost,
            )
        )
    return found


def unpaired(sweep: RateSweep, name: str, densities: Sequence[float]) -> str:
    """Word the same average with seeds not paired, as it was judged first."""
    own, other = (
        [fmean(by_density) for by_density in zip(*losses, strict=True)]
        for losses in [[sweep.best(key, d).losses for d in densities] for key in ("supar", name)]
    )
    half = unpaired_half_width(own, other)
    spread = "one seed" if half is None else f"+- {half / fmean(other):.2%}"
    return f"without pairing seeds {1 - fmean(own) / fmean(other):.2%} lower ({spread})"


def is_close(gain: Gain, figure: float) -> bool:
    """Whether a gain is the paper's."""
    return abs(gain.mean - figure) <= SAME_FIGURE


def loss_table(sweep: RateSweep, name: str) -> Table:
    """Losses of one parametrization: a row a density, a column a rate."""
    rates = [power(cell.rate) for cell in sweep.row(name, DENSE)]
    rows = []
    for density in sweep.variants:
        best = sweep.best(name, density)
        cells = [
            "-"
            if not math.isfinite(cell.loss)
            else f"{cell.loss:.3f}" + ("*" if cell is best else "")
            for cell in sweep.row(name, density)
        ]
        rows.append([f"{NAMES[name]}, density {fraction(density)}", *cells])
    return Table(["base learning rate", *rates], rows)


def curves(sweep: RateSweep, name: str) -> Figure:
    """Loss over learning rate, a line a density."""
    lines = []
    for density in sweep.variants:
        row = [cell for cell in sweep.row(name, density) if math.isfinite(cell.loss)]
        rates, losses = [cell.rate for cell in row], [cell.loss for cell in row]
        lines.append(Series(f"density {fraction(density)}", rates, losses, "points"))
    title = f"{NAMES[name]}: training loss over base learning rate"
    return line_figure(title, lines, "base learning rate", "nats per byte", log_x=True)


def optimum_figure(sweep: RateSweep) -> Figure:
    """The best rate over density, a line a parametrization."""
    densities = sorted(sweep.variants)
    lines = [
        Series(label, densities, [sweep.best(name, d).rate for d in densities], "points")
        for name, label in NAMES.items()
    ]
    title = "Best base learning rate over density"
    return line_figure(title, lines, "density", "best base learning rate", log_x=True, log_y=True)


def fraction(density: float) -> str:
    """A density that is a power of a half as ``1/16``."""
    return "1" if density == DENSE else f"1/{1 / density:g}"


def power(rate: float) -> str:
    """A rate of the grid as a power of two."""
    return f"2^{math.log2(rate):g}"


PAPER = Paper(
    name="supar",
    title="SmuPar: sparse maximal update parametrization",
    number="2405.15743",
    data=Data("supar/small"),
    stages=stages,
    measure=measure,
    judge=judge,
)
