"""Coordinate check: do activations keep their size as width, density or depth changes?

Each candidate is trained for ten steps at each point of each axis with several seeds.
``parametrization.coordinates`` computes slopes and verdicts. Two candidates with equal tables at a
point share its runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch

from feldspar.core.execution import available_cores, executor
from feldspar.core.json_files import json_values
from feldspar.core.progress import progress, say
from feldspar.model.attention import Attention
from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import set_forward_multipliers
from feldspar.parametrization.coordinates import (
    ATTENTION_MULTIPLIER,
    Axis,
    Bound,
    Measure,
    bounds,
    claimed_axes,
    clear_growth,
    slope,
)
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.model import ModelSettings
from feldspar.sparsity.density import LOW_FAN_IN, densities
from feldspar.study.coordinate_points import (
    HEAD_DIM,
    LEARNING_RATES,
    Candidate,
    Spread,
    candidates_of,
    model_at,
    name_of,
    point_on,
    spreads_of,
)
from feldspar.study.coordinate_runs import (
    UNDISTURBED,
    CoordinateRun,
    draw_batches,
    measure_run,
    static_sparsity,
)

CONTROLS: dict[Axis, tuple[str, ...]] = {
    "width": ("sp",),
    "density": ("sp", "mup"),
    "depth": ("sp", "mup"),
}
"""Parametrizations that are known to fail. If one does not fail, the check is not sensitive
enough."""


@dataclass(frozen=True)
class Judgement:
    """Measurements of one candidate along one axis.

    ``sizes`` holds the geometric mean over seeds at each value of the axis; a slope is NaN if a run
    diverged.
    """

    axis: Axis
    candidate: Candidate
    spread: Spread
    sizes: Mapping[Measure, tuple[float, ...]]
    slopes: Mapping[Measure, float]

    @property
    def faults(self) -> tuple[Bound, ...]:
        """Bounds that the slopes exceed."""
        wanted = bounds(self.axis, self.candidate.settings)
        return tuple(bound for bound in wanted if not bound.holds(self.slopes))

    @property
    def passed(self) -> bool:
        """True if all bounds hold."""
        return not self.faults

    @property
    def grows_clearly(self) -> bool:
        """True if activations clearly grow, or a run diverged."""
        return all(
            bound.holds(self.slopes) or math.isnan(self.slopes[bound.measure])
            for bound in clear_growth(self.axis)
        )


@dataclass(frozen=True)
class CoordinateCheck:
    """Judgements of a recipe's check; ``own`` names the recipe's own parametrization."""

    recipe: str
    own: str
    claims: tuple[Axis, ...]
    judgements: tuple[Judgement, ...]

    @cached_property
    def by_axis(self) -> dict[Axis, dict[str, Judgement]]:
        """Judgements by axis, then by name of the candidate."""
        found: dict[Axis, dict[str, Judgement]] = {}
        for judgement in self.judgements:
            found.setdefault(judgement.axis, {})[judgement.candidate.name] = judgement
        return found

    @property
    def broken_claims(self) -> tuple[Axis, ...]:
        """Axes where the recipe's own parametrization promises stability and fails."""
        return tuple(axis for axis in self.claims if not self.by_axis[axis][self.own].passed)

    @property
    def outcome(self) -> str:
        """Result for the recipe, in one line."""
        if not self.claims:
            return f"{self.own} is the recipe's own parametrization and promises no stability"
        if self.broken_claims:
            return (
                f"{self.own} is the recipe's own parametrization and fails on "
                f"{' and '.join(self.broken_claims)}"
            )
        return (
            f"{self.own} is the recipe's own parametrization and is stable where it "
            f"promises: {', '.join(self.claims)}"
        )

    @property
    def silent_controls(self) -> tuple[tuple[Axis, str], ...]:
        """Controls that must fail clearly and did not."""
        return tuple(
            (axis, name)
            for axis, names in CONTROLS.items()
            for name in names
            if name in self.by_axis.get(axis, {}) and not self.by_axis[axis][name].grows_clearly
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; a slope that does not exist is null."""
        axes = self.by_axis.items()
        return {
            "verdicts": {
                axis: {name: "pass" if one.passed else "fail" for name, one in found.items()}
                for axis, found in axes
            },
            "slopes": {
                axis: {name: _nested(one.slopes) for name, one in found.items()}
                for axis, found in axes
            },
            "faults": {
                axis: {
                    name: [
                        {
                            "measure": str(bound.measure),
                            "slope": json_values(one.slopes[bound.measure]),
                            "allowed": [bound.low, bound.high],
                        }
                        for bound in one.faults
                    ]
                    for name, one in found.items()
                }
                for axis, found in axes
            },
            "recipe": {
                "name": self.recipe,
                "parametrization": self.own,
                "claims": list(self.claims),
                "broken": list(self.broken_claims),
            },
            "silent_controls": [list(pair) for pair in self.silent_controls],
            "sizes": {
                axis: {name: _nested(one.sizes) for name, one in found.items()}
                for axis, found in axes
            },
            "values": {
                axis: list(next(iter(found.values())).spread.values) for axis, found in axes
            },
            "seeds": {axis: next(iter(found.values())).spread.seeds for axis, found in axes},
        }


def check_recipe(
    recipe: Recipe, quick: bool = False, workers: int | None = None
) -> CoordinateCheck:
    """Check all parametrizations on small models of the recipe's kind.

    ``quick``: fewer and smaller models. ``workers`` as in ``judge``. Raises UserError for values in
    ``study.vary`` that the check's models cannot have.
    """
    own = recipe.parametrization
    judgements = judge(
        recipe.model, candidates_of(recipe), spreads_of(recipe, quick), recipe.seed, workers
    )
    return CoordinateCheck(recipe.name, name_of(own), claimed_axes(own), tuple(judgements))


def judge(
    kind: ModelSettings,
    candidates: Sequence[Candidate],
    spreads: Mapping[Axis, Spread],
    first_seed: int = 0,
    workers: int | None = None,
) -> list[Judgement]:
    """Return the judgement of each candidate along each axis, for models of one ``kind``.

    ``workers`` is the number of processes, of one thread each; default: one for each core.
    """
    runs = {
        (axis, candidate): [
            [
                _run(kind, candidate, axis, value, first_seed + index)
                for index in range(spread.seeds)
            ]
            for value in spread.values
        ]
        for axis, spread in spreads.items()
        for candidate in candidates
    }
    _warn_of_low_fan_in(spreads)
    every = dict.fromkeys(run for points in runs.values() for seeds in points for run in seeds)
    measured = _measured(list(every), workers)
    return [
        _judgement(
            kind,
            axis,
            candidate,
            spreads[axis],
            [[measured[run] for run in seeds] for seeds in points],
        )
        for (axis, candidate), points in runs.items()
    ]


def _run(
    kind: ModelSettings, candidate: Candidate, axis: Axis, value: float, seed: int
) -> CoordinateRun:
    point = point_on(axis, value)
    model = model_at(kind, point)
    shapes = model_shapes(model)
    settings = candidate.settings.model_copy(update={"learning_rate": LEARNING_RATES[axis]})
    kept = densities(static_sparsity(point.density), shapes.rows)
    optimizer = candidate.optimizer.model_copy(update=UNDISTURBED)
    table = candidate.rule(settings, shapes, kept, optimizer)
    # The name is left out, so that candidates with equal rules at this point share the run.
    return CoordinateRun(replace(table, type=""), model, point.density, seed, optimizer)


def _measured(
    runs: list[CoordinateRun], workers: int | None
) -> dict[CoordinateRun, dict[Measure, float]]:
    found = {}
    with (
        executor(min(workers or available_cores(), len(runs))) as pool,
        progress("coordinate check", len(runs), "runs") as advance,
    ):
        results = pool.map(partial(measure_run, batches=draw_batches()), runs)
        for run, measures in zip(runs, results, strict=True):
            found[run] = measures
            advance(1)
    return found


def _judgement(
    kind: ModelSettings,
    axis: Axis,
    candidate: Candidate,
    spread: Spread,
    points: list[list[dict[Measure, float]]],
) -> Judgement:
    """Return a judgement; ``points`` has a list for each value of the axis, with measures for each
    seed."""
    sizes, slopes = {}, {}
    for measure in points[0][0]:
        by_point = [[seed[measure] for seed in seeds] for seeds in points]
        sizes[measure] = tuple(map(_geometric_mean, by_point))
        slopes[measure] = slope(spread.values, by_point)
    if axis == "width":
        slopes[ATTENTION_MULTIPLIER] = attention_slope(kind, candidate)
    return Judgement(axis, candidate, spread, sizes, slopes)


def attention_slope(kind: ModelSettings, candidate: Candidate) -> float:
    """Return the slope of the factor of q.k over head_dim; it is read from the module, without a
    run."""
    point = point_on("width", 2 * HEAD_DIM)
    factors = []
    for head_dim in (HEAD_DIM, 2 * HEAD_DIM):
        model = model_at(kind, point, head_dim)
        with torch.device("meta"):
            decoder = Decoder(model)
        table = candidate.rule(candidate.settings, model_shapes(model), {}, candidate.optimizer)
        set_forward_multipliers(decoder, table.forward)
        factors.append(
            [
                module.score_multiplier
                for module in decoder.modules()
                if isinstance(module, Attention)
            ]
        )
    return slope((HEAD_DIM, 2 * HEAD_DIM), factors)


def _warn_of_low_fan_in(spreads: Mapping[Axis, Spread]) -> None:
    densities_checked = spreads["density"].values if "density" in spreads else ()
    for density in densities_checked:
        point = point_on("density", density)
        if point.d_model * density < LOW_FAN_IN:
            say(
                f"warning: at density {density:g} a neuron of the check has "
                f"{point.d_model * density:g} inputs; with fewer than {LOW_FAN_IN}, "
                "averages are not reliable"
            )


def _geometric_mean(sizes: Sequence[float]) -> float:
    if any(not (0 < size < math.inf) for size in sizes):
        return math.nan
    return math.exp(sum(map(math.log, sizes)) / len(sizes))


def _nested(measured: Mapping[Measure, Any]) -> dict[str, Any]:
    """Return nested values: quantity -> size or change -> step -> value."""
    found: dict[str, Any] = {}
    for measure, value in measured.items():
        kinds = found.setdefault(measure.quantity, {})
        kinds.setdefault(measure.kind, {})[str(measure.step)] = json_values(value)
    return found
