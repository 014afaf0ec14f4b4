"""SmuPar (2405.15743): the best learning rate at every density, under SP, muP and SmuPar.

The experiment is the ``study`` of the recipe: loss over the grid parametrization x sparsity x
learning rate. Rates are tuned on the dense model; then it is made sparse.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from feldspar.core.student_t import unpaired_half_width
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain
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
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.kit.text_baselines import table_beside_baselines, text_baselines
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.study import Range
from feldspar.report.canvas import Figure
from feldspar.report.figures import Series, line_figure
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial

PARAMETRIZATION = "choose.parametrization"
SPARSITY = "phases.0.sparsity.sparsity"
RATE = "parametrization.learning_rate"
NAMES = {"sp": "SP", "mup": "muP", "supar": "SmuPar"}
QUICK_STEPS = 30
DENSE = 1.0
LOWEST = "1/128"
"""The lowest density of the paper's 610M models."""

SP_SWEEP_STD = 0.08665602 / 4
"""SP's initial std in the paper's sweeps (table 4): what muP gives at 16 times the base width."""


def recipe_of(scale: Scale) -> str:
    """Return the shipped recipe of a scale."""
    return "supar/paper" if scale is Scale.PAPER else "supar/small"


def grid(scale: Scale) -> tuple[list[dict[str, Any]], int]:
    """Return the values of each point of the recipe's study, and the number of seeds."""
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


def shortened(scale: Scale) -> tuple[str, ...]:
    """Return the override that shortens the runs of a quick experiment."""
    return (f"phases.0.length={QUICK_STEPS} steps",) if scale is Scale.QUICK else ()


def sweep_trials(scale: Scale) -> list[Trial]:
    """Return a trial for each point and seed, seeds fastest."""
    points, seeds = grid(scale)
    trials = []
    for point in points:
        overrides = list(shortened(scale))
        if scale is Scale.PAPER:
            overrides.append("choose.experiment=sweep")
            if point[PARAMETRIZATION] == "sp":
                overrides.append(f"parametrization.init_std={SP_SWEEP_STD}")
        trials += [trial_of(point, seed, overrides) for seed in range(seeds)]
    return trials


def large_grid() -> list[tuple[str, str]]:
    """Return parametrization and density of each of the paper's 610M models."""
    densities = load_recipe("supar/paper").recipe.choices["density"]
    pairs = product(NAMES, densities)
    return [(name, density) for name, density in pairs if (name, density) != ("supar", "dense")]


def large_trials() -> list[Trial]:
    """Return the paper's 610M models, each at the rate that was tuned dense."""
    return [
        trial_of({PARAMETRIZATION: name, "choose.density": density}, 0)
        for name, density in large_grid()
    ]


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the sweep; at the paper's scale the 610M models too."""
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


def measure_without_runs(scale: Scale) -> Figures:
    """Return bits per byte without a model, by the tokens that every run reads."""
    return {"baselines": text_baselines(recipe_of(scale), shortened(scale))}


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and drawings."""
    sweep = RateSweep(tuple(map(Cell.from_dict, figures["cells"])), DENSE)
    untuned = figures.get("610M", untuned_losses(sweep))
    judged = (
        stays_claim(sweep, claims),
        *(moves_claim(name, sweep, claims) for name in ("mup", "sp")),
        *(untuned_claim(name, untuned, sweep, claims) for name in ("sp", "mup")),
        *(retuned_claim(name, sweep, claims) for name in ("sp", "mup")),
    )
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
    tables = (baseline_table(sweep, figures["baselines"]),) if "baselines" in figures else ()
    return Findings(judged, (section,), optimum_figure(sweep), tables)


def baseline_table(sweep: RateSweep, baselines: Mapping[str, float]) -> Table:
    """Return the densest and the sparsest models at their best rates beside the baselines."""
    ends = {"dense": DENSE, f"density {fraction(min(sweep.variants))}": min(sweep.variants)}
    losses = {
        f"{label}, {end}": sweep.best(name, density).loss
        for name, label in NAMES.items()
        for end, density in ends.items()
        if (name, density) != ("supar", DENSE)
    }
    return table_beside_baselines(losses, baselines, "models: training text; others: held-out text")


def untuned_losses(sweep: RateSweep) -> dict[str, Sequence[float]]:
    """Return the loss at the highest sparsity by seed, with the rate that was tuned dense."""
    sparsest = min(sweep.variants)
    return {name: sweep.untuned(name, sparsest).losses for name in NAMES}


def sparse_densities(sweep: RateSweep) -> list[float]:
    """Return the densities below 1, the largest first."""
    return [density for density in sweep.variants if density != DENSE]


def stays_claim(sweep: RateSweep, claims: StatedClaims) -> Claim:
    """Judge that SmuPar's best rate stays as density falls."""
    name = "optimum-stays-supar"
    shifts = {density: sweep.shift("supar", density) for density in sparse_densities(sweep)}
    largest = max(map(abs, shifts.values()))
    told = ", ".join(f"{fraction(density)}: {shift:+g}" for density, shift in shifts.items())
    return claims.judged(
        name,
        f"dense best {power(sweep.best('supar', DENSE).rate)}; octaves from it at density {told}",
        held=largest <= claims.limit(name, "octaves"),
        largest=largest,
    )


def moves_claim(other: str, sweep: RateSweep, claims: StatedClaims) -> Claim:
    """Judge that another parametrization's best rate rises as density falls."""
    name = f"optimum-moves-{other}"
    lowest = min(sweep.variants)
    shift = sweep.shift(other, lowest)
    edge = sweep.is_edge(other, lowest) or sweep.is_edge(other, DENSE)
    return claims.judged(
        name,
        f"from {power(sweep.best(other, DENSE).rate)} dense to "
        f"{power(sweep.best(other, lowest).rate)} at density {fraction(lowest)}: "
        f"{octaves(shift, edge)}",
        held=shift >= claims.limit(name, "octaves"),
        lowest=fraction(lowest),
    )


def untuned_claim(
    other: str,
    untuned: Mapping[str, Sequence[float]],
    sweep: RateSweep,
    claims: StatedClaims,
) -> Claim:
    """Judge the loss of the sparsest model with the dense model's hyper-parameters."""
    name = f"untuned-loss-{other}"
    gain = Gain.of(untuned["supar"], untuned[other])
    density = LOWEST if claims.at_paper_scale else fraction(min(sweep.variants))
    held = gain.exceeds(claims.limit(name, "noise"))
    return claims.judged(
        name,
        f"{gain.lower_or_higher} at density {density}: {fmean(untuned['supar']):.3f} "
        f"against {fmean(untuned[other]):.3f}",
        held=held,
        near_figure=claims.near(name, gain.mean),
        reading="held_small" if held and not claims.at_paper_scale else "",
    )


def retuned_claim(other: str, sweep: RateSweep, claims: StatedClaims) -> Claim:
    """Judge the best loss of each density with the rate tuned anew, over all sparse densities."""
    name = f"retuned-loss-{other}"
    noise = claims.limit(name, "noise")
    sparse = sparse_densities(sweep)
    lowest = min(sparse)
    gains = {
        density: Gain.of(sweep.best("supar", density).losses, sweep.best(other, density).losses)
        for density in sparse
    }
    by_seed = zip(*(gain.by_seed for gain in gains.values()), strict=True)
    mean = Gain(tuple(map(fmean, by_seed)))
    own, theirs = sweep.best("supar", lowest).loss, sweep.best(other, lowest).loss
    held = mean.exceeds(noise)
    return claims.judged(
        name,
        f"{mean.lower_or_higher} on average over {len(sparse)} "
        f"{'density' if len(sparse) == 1 else 'densities'}; at {fraction(lowest)} "
        f"{gains[lowest].lower_or_higher}, {own:.3f} against {theirs:.3f}; "
        f"{unpaired(sweep, other, sparse)}",
        held=held,
        near_figure=claims.near(name, mean.mean),
        reading="no_gain" if not held and mean.mean <= noise else "",
    )


def unpaired(sweep: RateSweep, name: str, densities: Sequence[float]) -> str:
    """Word the same average with seeds not paired, as it was judged first."""
    own, other = (
        [fmean(by_density) for by_density in zip(*losses, strict=True)]
        for losses in [[sweep.best(key, d).losses for d in densities] for key in ("supar", name)]
    )
    half = unpaired_half_width(own, other)
    spread = "one seed" if half is None else f"+- {half / fmean(other):.2%}"
    return f"without pairing seeds {1 - fmean(own) / fmean(other):.2%} lower ({spread})"


def loss_table(sweep: RateSweep, name: str) -> Table:
    """Return the losses of one parametrization: a row a density, a column a rate."""
    rates = [power(cell.rate) for cell in sweep.row(name, DENSE)]
    rows = [
        [f"{NAMES[name]}, density {fraction(density)}", *sweep.loss_cells(name, density, 3)]
        for density in sweep.variants
    ]
    return Table(["base learning rate", *rates], rows)


def curves(sweep: RateSweep, name: str) -> Figure:
    """Draw the loss over learning rate, a line a density."""
    lines = []
    for density in sweep.variants:
        row = [cell for cell in sweep.row(name, density) if math.isfinite(cell.loss)]
        rates, losses = [cell.rate for cell in row], [cell.loss for cell in row]
        lines.append(Series(f"density {fraction(density)}", rates, losses, "points"))
    title = f"{NAMES[name]}: training loss over base learning rate"
    return line_figure(title, lines, "base learning rate", "nats per byte", log_x=True)


def optimum_figure(sweep: RateSweep) -> Figure:
    """Draw the best rate over density, a line a parametrization."""
    densities = sorted(sweep.variants)
    best = {name: [sweep.best(name, d).rate for d in densities] for name in NAMES}
    lines = [
        Series(label, densities, best[name], "points", is_reference=name != "supar")
        for name, label in NAMES.items()
    ]
    moves = ", ".join(
        f"{abs(math.log2(best[name][0] / best[name][-1])):.2g} with {label}"
        for name, label in NAMES.items()
    )
    title = (
        f"From dense to density {fraction(densities[0])} the best learning rate moves by this "
        f"many octaves: {moves}"
    )
    ticks = {density: fraction(density) for density in densities}
    return line_figure(
        title, lines, "density", "best base learning rate", log_x=True, log_y=True, ticks=ticks
    )


def fraction(density: float) -> str:
    """Word a density that is a power of a half as ``1/16``."""
    return "1" if density == DENSE else f"1/{1 / density:g}"


def power(rate: float) -> str:
    """Word a rate of the grid as a power of two."""
    return f"2^{math.log2(rate):g}"


PAPER = Paper(
    name="supar",
    folder=Path(__file__).parent,
    data=Data("supar/small"),
    stages=stages,
    measure=measure,
    judge=judge,
    measure_without_runs=measure_without_runs,
)
