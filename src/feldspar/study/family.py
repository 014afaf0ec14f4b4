"""Train a family of model sizes from one recipe, each with several seeds, and fit a law to it.

Sizes are the recipe's ``study.targets``, or are derived from widths. All requirements of a law are
checked before training.
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
    """One size and its runs, one for each seed."""

    size: Size
    results: tuple[TrialResult, ...]

    @property
    def losses(self) -> tuple[float, ...]:
        """Loss of each seed that did not diverge."""
        return tuple(result.score for result in self.results if not result.diverged)

    @property
    def loss(self) -> float:
        """Mean of the losses."""
        return sum(self.losses) / len(self.losses)

    def as_dict(self, folder: Path) -> dict[str, Any]:
        """Return plain values, with run folders relative to ``folder``."""
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
    """A trained family, in order of FLOPs, and the law fitted to it."""

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
        """Return sizes, runs and fit as plain values, with paths relative to ``folder``."""
        return {
            "convention": self.convention,
            "metric": self.metric,
            "seed_std": self.seed_std,
            "sizes": [member.as_dict(folder) for member in self.members],
            "warnings": self.warnings,
        }

    @property
    def warnings(self) -> list[str]:
        """Warnings about runs that are missing from the mean of their size."""
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
    """Train all sizes of ``recipe`` (file or shipped name) in ``folder``/runs and fit the law.

    ``targets`` (dotted keys and values of each size) default to the recipe's ``study.targets``. The
    section ``study`` also gives the number of seeds and of held-out sizes and, with a score that
    begins with ``validation/``, the loss to fit. The same call again trains only what is missing.
    Raises UserError before training if no law can be fitted to the family, and RunError if all
    seeds of a size diverged.
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
                f"all seeds of the size with {member.size.parameters:,} parameters diverged",
                where=str(member.results[0].folder),
                do="lower its learning rate, or remove it from the family",
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
    """Return the sizes in order of FLOPs, without training. Raises UserError for a target that does
    not fit the recipe."""
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
    """Return targets of other widths. They keep the model's head width, d_ff / d_model and, unless
    ``depth`` is fixed, d_model / n_layers, rounded. Raises UserError for a width that is not a
    multiple of the head width."""
    return [_target_of_width(model, width, depth) for width in widths]


def _target_of_width(model: ModelSettings, width: int, depth: Depth) -> dict[str, Any]:
    heads, rest = divmod(width * model.n_heads, model.d_model)
    if rest or heads == 0 or width * model.kv_heads % model.d_model:
        step = model.d_model // math.gcd(model.d_model, model.n_heads, model.kv_heads)
        low = width // step * step
        raise UserError(
            f"width {width} is not a multiple of head_dim",
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
