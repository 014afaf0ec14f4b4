"""Tune a small model, transfer the values to other model sizes, and verify them there.

Search on the proxy; write the best values as a recipe that extends the proxy's recipe; then sweep
the learning rate on the proxy and on each of ``study.targets``, and compare the optima. The claim
of muP (2203.03466), SmuPar (2405.15743) and CompleteP (2505.01618) is verified: one learning rate
is the best for all widths, densities and depths.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.files import write_atomically
from feldspar.core.progress import say
from feldspar.recipe.load import LoadedRecipe, load_recipe
from feldspar.recipe.sections.study import Range, StudySettings
from feldspar.recipe.shipped import find_recipe, is_shipped
from feldspar.recipe.tree import origin_of
from feldspar.recipe.yaml import parse_yaml
from feldspar.study.curves import Curve, OptimumShift, Verdict, compare_curves
from feldspar.study.search import best_point, search_proxy, study_of
from feldspar.study.sweep import SweepPoint, as_overrides, run_name, run_sweep
from feldspar.study.trials import check_trial

LEARNING_RATE = "parametrization.learning_rate"
STEPS_AROUND = 2
"""Number of powers of two on each side of the best rate, if the study gives no grid."""
BEST_NAME = "best.yaml"
PROXY_NAME = "proxy"
CARRIED_SECTIONS = ("parametrization", "optimizer", "schedule")
"""Sections whose values are transferred; model sizes and lengths stay those of the proxy."""


@dataclass(frozen=True)
class ShapeCurve:
    """Sweep of one model size: its name, its overrides of the proxy, its points by rate."""

    name: str
    overrides: dict[str, Any]
    points: tuple[SweepPoint, ...]

    @property
    def curve(self) -> Curve:
        """Mean loss over the seeds at each rate."""
        rates = tuple(point.values[LEARNING_RATE] for point in self.points)
        return Curve(rates, tuple(point.score for point in self.points))


@dataclass(frozen=True)
class Transfer:
    """Results of a search and of its verification; ``targets`` may be empty."""

    recipe: str
    overrides: tuple[str, ...]
    folder: Path
    study: StudySettings
    searched: tuple[SweepPoint, ...]
    transferred: float
    proxy: ShapeCurve | None
    targets: tuple[ShapeCurve, ...]

    @property
    def best(self) -> SweepPoint:
        """Point of the search with the lowest score."""
        return best_point(self.searched)

    @property
    def moves(self) -> tuple[OptimumShift, ...]:
        """Distance of each target's optimum from the proxy's."""
        if self.proxy is None:
            return ()
        return tuple(
            compare_curves(self.proxy.curve, target.curve, self.transferred)
            for target in self.targets
        )

    @property
    def verdict(self) -> Verdict | None:
        """``holds`` if it holds for all targets; None without targets."""
        verdicts = {item.verdict for item in self.moves}
        if not verdicts:
            return None
        return "moved" if "moved" in verdicts else "unclear" if "unclear" in verdicts else "holds"


def run_transfer(
    recipe: str, overrides: Sequence[str], folder: Path, *, workers: int = 1
) -> Transfer:
    """Search on ``recipe`` with ``overrides``, write best.yaml, verify at ``study.targets``.

    All runs are in ``folder``: the search and the proxy's sweep, which share runs, under ``proxy``;
    each target under its own name. The same call again trains only what is missing. Raises
    UserError for errors that can be found before the first step, and RunError if all trials of the
    search diverged.
    """
    loaded = load_recipe(recipe, list(overrides))
    study = study_of(loaded)
    check_trial(recipe, overrides, study.score)
    check_targets(recipe, overrides, loaded)
    searched = search_proxy(recipe, overrides, folder / PROXY_NAME, workers=workers)
    best = best_point(searched)
    write_best(folder / BEST_NAME, recipe, overrides, best, loaded)
    say(f"best of {len(searched)} trials: {study.score} {best.score:.4f}; {folder / BEST_NAME}")
    transferred = best.values.get(LEARNING_RATE, loaded.recipe.parametrization.learning_rate)
    shapes = []
    if study.targets:
        rates = verification_rates(study, transferred)
        # The rate keeps its place among the keys, so runs have the same names as in the search.
        grid = {key: [value] for key, value in best.values.items()} | {LEARNING_RATE: rates}
        for target in ({}, *study.targets):
            name = run_name(target) if target else PROXY_NAME
            points = run_sweep(
                recipe,
                (*overrides, *as_overrides(target)),
                grid,
                folder / name,
                seeds=study.seeds,
                score=study.score,
                workers=workers,
            )
            shapes.append(ShapeCurve(name, target, tuple(points)))
    return Transfer(
        recipe=recipe,
        overrides=tuple(overrides),
        folder=folder,
        study=study,
        searched=tuple(searched),
        transferred=transferred,
        proxy=shapes[0] if shapes else None,
        targets=tuple(shapes[1:]),
    )


def check_targets(recipe: str, overrides: Sequence[str], loaded: LoadedRecipe) -> None:
    """Raise UserError for a target that cannot be trained, or that sets a key that the study
    varies."""
    study = study_of(loaded)
    for index, target in enumerate(study.targets):
        key = f"study.targets.{index}"
        where = origin_of(loaded.origins, ("study", "targets", index))
        varied = next((name for name in target if name in (*study.vary, LEARNING_RATE)), None)
        if varied is not None:
            raise UserError(
                f"{key}: the study varies {varied}, so a target cannot set it", where=where
            )
        if run_name(target) in map(run_name, study.targets[:index]):
            raise UserError(f"{key}: another target has the same name", where=where, found=target)
        if not target:
            raise UserError(f"{key}: the target is the same model as the proxy", where=where)
        try:
            check_trial(recipe, (*overrides, *as_overrides(target)), study.score)
        except UserError as error:
            raise UserError(
                f"{key}: {error.what}",
                where=where,
                found=error.found,
                allowed=error.allowed,
                do=error.do,
            ) from error


def verification_rates(study: StudySettings, best: float) -> tuple[float, ...]:
    """Return the ascending rates of the sweep: the study's grid, or else powers of two around the
    best.

    ``best`` is always among them.
    """
    choice = study.vary.get(LEARNING_RATE)
    if isinstance(choice, Range) and choice.points:
        return choice.grid()
    if isinstance(choice, tuple) and len(choice) > 1:
        return tuple(sorted(set(map(float, choice))))
    return tuple(best * 2.0**step for step in range(-STEPS_AROUND, STEPS_AROUND + 1))


def write_best(
    path: Path, recipe: str, overrides: Sequence[str], best: SweepPoint, loaded: LoadedRecipe
) -> None:
    """Write a recipe that extends the proxy's recipe with the best values.

    They are applied as the last choice, so that no earlier choice of the recipe replaces them.
    Overrides of hyper-parameters and choices are written too; those of model sizes and lengths
    belong to the proxy.
    """
    given = {
        key.strip(): parse_yaml(text, f"override {key}")[0]
        for key, _, text in (override.partition("=") for override in overrides)
    }
    values = {key: value for key, value in given.items() if key not in best.values} | best.values
    chosen = {
        key.partition(".")[2]: value for key, value in values.items() if _section(key) == "choose"
    }
    option = {
        key: value
        for key, value in values.items()
        if _section(key) in CARRIED_SECTIONS or (key in best.values and _section(key) != "choose")
    }
    source = find_recipe(recipe)
    lines = [
        f"# {study_of(loaded).score} {best.score:.6g} on the proxy",
        *(
            f"# proxy: {key}={_json(value)}"
            for key, value in given.items()
            if _section(key) != "study"
        ),
        f"extends: {_json(recipe if is_shipped(source) else str(source.resolve()))}",
        f"name: {loaded.recipe.name}-best",
        "choices:",
        "  transfer:",
        "    best:",
        *(f"      {_json(key)}: {_json(value)}" for key, value in option.items()),
        "choose:",
        *(f"  {_json(key)}: {_json(value)}" for key, value in chosen.items()),
        "  transfer: best",
    ]
    write_atomically(path, "\n".join(lines) + "\n")


def _section(key: str) -> str:
    return key.partition(".")[0]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
