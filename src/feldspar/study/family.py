"""A family of sizes from one recipe, each trained with every seed: the points of a law.

Sizes are the recipe's ``study.targets``, or follow from widths by one rule. What a family needs to
carry a law is checked before anything is trained.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from feldspar.core.errors import RunError, UserError
from feldspar.plan.laws.law import Point
from feldspar.plan.laws.law_basis import CONVENTION, METRIC, planned_flops
from feldspar.plan.laws.law_fit import LawFit, check_sizes, fit_law
from feldspar.recipe.load import LoadedRecipe, load_recipe
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.study import StudySettings
from feldspar.study.run_points import read_runs
from feldspar.study.sweep import as_overrides, trial_of
from feldspar.study.trials import TrialResult, run_trials
from feldspar.train.data import plan_loaded

RUNS_FOLDER = "runs"
Depth = Literal["proportional", "fixed"]


@dataclass(frozen=True)
class Size:
    """One size of a family, before it is trained."""

    target: dict[str, Any]
    parameters: int
    tokens: int
    flops: float


@dataclass(frozen=True)
class Member:
    """One size and its runs, one a seed."""

    size: Size
    results: tuple[TrialResult, ...]

    @property
    def losses(self) -> tuple[float, ...]:
        """The loss of each seed that did not diverge."""
        return tuple(result.score for result in self.results if not result.diverged)

    @property
    def loss(self) -> float:
        """Their mean."""
        return sum(self.losses) / len(self.losses)

    def as_dict(self, folder: Path) -> dict[str, Any]:
        """Plain values; run folders from ``folder`` on."""
        return {
            "target": self.size.target,
            "parameters": self.size.parameters,
            "tokens": self.size.tokens,
            "flops": self.size.flops,
            "loss": self.loss,
            "losses": list(self.losses),
            "diverged": sum(result.diverged for result in self.results),
            "seconds": sum(result.seconds for result in self.results),
            "runs": [result.folder.relative_to(folder).as_posix() for result in self.results],
        }


@dataclass(frozen=True)
class Family:
    """A trained family, by rising FLOPs, and the law fitted to it."""

    members: tuple[Member, ...]
    convention: str
    metric: str
    fit: LawFit

    @property
    def seed_std(self) -> float | None:
        """Standard deviation of log L between seeds of one size; None with one seed."""
        squares, freedom = 0.0, 0
        for member in self.members:
            logs = [math.log(loss) for loss in member.losses]
            mean = sum(logs) / len(logs)
            squares += sum((value - mean) ** 2 for value in logs)
            freedom += len(logs) - 1
        return math.sqrt(squares / freedom) if freedom else None

    def as_dict(self, folder: Path) -> dict[str, Any]:
        """Sizes and runs as plain values, beside those of the fit; paths from ``folder`` on."""
        return {
            "convention": self.convention,
            "metric": self.metric,
            "seed_std": self.seed_std,
            "sizes": [member.as_dict(folder) for member in self.members],
            "warnings": self.warnings,
        }

    @property
    def warnings(self) -> list[str]:
        """Runs that are missing from their size's mean."""
        counts = {
            member.size.parameters: sum(result.diverged for result in member.results)
            for member in self.members
        }
        return [
            f"{count} of the runs with {parameters:,} parameters diverged and are left out"
            for parameters, count in counts.items()
            if count
        ]


def run_family(
    recipe: str,
    overrides: Sequence[str],
    folder: Path,
    *,
    targets: Sequence[dict[str, Any]] | None = None,
    convention: str = CONVENTION,
    workers: int = 1,
) -> Family:
    """Train every size of ``recipe`` (file or shipped name) in ``folder``/runs and fit the law.

    ``targets`` (dotted keys and values of each size) default to the recipe's ``study.targets``;
    ``study`` also says how many seeds each size gets, how many of the largest are held out, and,
    by a score that begins with ``validation/``, what is fitted. The same call again trains only
    what is missing. Raises UserError before training for a family that carries no law, RunError
    when a size diverged with every seed.
    """
    loaded = load_recipe(recipe, list(overrides))
    study = loaded.recipe.study or StudySettings()
    metric = study.score if study.score.startswith("validation/") else METRIC
    sizes = plan_family(recipe, overrides, targets or study.targets, convention)
    check_sizes([size.flops for size in sizes], study.held_out)
    first = loaded.recipe.seed
    trials = [
        trial_of(size.target, first + index, overrides)
        for size in sizes
        for index in range(study.seeds)
    ]
    results = run_trials(recipe, trials, folder / RUNS_FOLDER, score=metric, workers=workers)
    members = tuple(
        Member(size, tuple(results[index * study.seeds : (index + 1) * study.seeds]))
        for index, size in enumerate(sizes)
    )
    for member in members:
        if not member.losses:
            raise RunError(
                f"the size with {member.size.parameters:,} parameters diverged with every seed",
                where=str(member.results[0].folder),
                do="lower its learning rate, or leave it out of the family",
            )
    finished = [result.folder for result in results if not result.diverged]
    runs = read_runs(finished, convention=convention, metric=metric)
    points = [Point(member.size.flops, member.loss) for member in members]
    fit = fit_law(points, held_out=study.held_out, basis=runs[0].basis)
    return Family(members, convention, metric, fit)


def plan_family(
    recipe: str,
    overrides: Sequence[str],
    targets: Sequence[dict[str, Any]],
    convention: str = CONVENTION,
) -> list[Size]:
    """Return the sizes by rising FLOPs, without training. Raises UserError for a target that does
    not fit the recipe.
    """
    sizes = []
    for target in targets:
        plan = plan_loaded(_at(recipe, overrides, target))
        flops = planned_flops(plan, convention)
        sizes.append(Size(dict(target), plan.shapes.parameters, plan.timeline.length, flops))
    return sorted(sizes, key=lambda size: size.flops)


def _at(recipe: str, overrides: Sequence[str], target: dict[str, Any]) -> LoadedRecipe:
    return load_recipe(recipe, [*overrides, *as_overrides(target)])


def targets_of_widths(
    model: ModelSettings, widths: Sequence[int], depth: Depth = "proportional"
) -> list[dict[str, Any]]:
    """Shapes of other widths with the model's own head width, d_ff / d_model and, unless ``depth``
    is fixed, d_model / n_layers, rounded. Raises UserError for a width that holds no whole heads.
    """
    return [_target_of_width(model, width, depth) for width in widths]


def _target_of_width(model: ModelSettings, width: int, depth: Depth) -> dict[str, Any]:
    heads, rest = divmod(width * model.n_heads, model.d_model)
    if rest or heads == 0 or width * model.kv_heads % model.d_model:
        step = model.d_model // math.gcd(model.d_model, model.n_heads, model.kv_heads)
        low = width // step * step
        raise UserError(
            f"width {width} holds no whole number of the recipe's heads",
            allowed=f"multiples of {step}, such as {low or step} or {(low or step) + step}",
        )
    target: dict[str, Any] = {
        "model.d_model": width,
        "model.n_heads": heads,
        "model.d_ff": round(model.d_ff * width / model.d_model),
    }
    if model.n_kv_heads is not None:
        target["model.n_kv_heads"] = width * model.n_kv_heads // model.d_model
    if depth == "proportional":
        target["model.n_layers"] = max(1, round(model.n_layers * width / model.d_model))
    return target
