"""Run studies of many trainings: laws, families, transfer, papers, and reports of runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feldspar.api.arguments import load_recipe, path_of
from feldspar.core.errors import UserError

if TYPE_CHECKING:
    from feldspar.api.arguments import PathLike, RecipeLike
    from feldspar.plan.laws.law import Basis, Point
    from feldspar.plan.laws.law_fit import LawFit
    from feldspar.study.coordinate_check import CoordinateCheck
    from feldspar.study.family import Family
    from feldspar.study.transfer import Transfer


def fit_law(
    points: Iterable[tuple[float, float]] | PathLike | Sequence[PathLike],
    *,
    held_out: int = 1,
    huber: float | None = None,
    convention: str = "6P+attention",
    metric: str = "validation/loss",
) -> LawFit:
    """Fit a law of loss over training FLOPs and judge it on the largest sizes.

    ``points`` are pairs of FLOPs and loss, a CSV file with the columns flops and loss, or finished
    run folders, whose FLOPs are counted by ``convention`` and whose loss is ``metric``. Raises
    UserError for points that carry no law.
    """
    from feldspar.plan.laws.law import Point
    from feldspar.plan.laws.law_fit import fit_law as fit

    given = [points] if isinstance(points, str | os.PathLike) else list(points)
    paths = [os.fspath(each) for each in given if isinstance(each, str | os.PathLike)]
    if paths and len(paths) == len(given):
        found, basis = _points_of(paths, convention, metric)
        return fit(found, held_out=held_out, huber=huber, basis=basis)
    pairs = [each for each in given if isinstance(each, tuple | list) and len(each) == 2]
    if len(pairs) < len(given):
        raise UserError("points: pairs of FLOPs and loss, or files, are needed; not both")
    return fit(
        [Point(float(flops), float(loss)) for flops, loss in pairs], held_out=held_out, huber=huber
    )


def train_family(
    recipe: RecipeLike,
    out: PathLike | None = None,
    *,
    widths: Sequence[int] | None = None,
    depth: Literal["proportional", "fixed"] = "proportional",
    convention: str = "6P+attention",
    workers: int = 1,
) -> Family:
    """Train a family of sizes from one recipe and fit a law to them.

    Sizes are the recipe's ``study.targets``, or follow from ``widths`` (values of d_model). The
    same call again trains only what is missing. Raises UserError, before training, for a family
    that carries no law.
    """
    from feldspar.prepare.build import build_missing
    from feldspar.recipe.load import language_recipe
    from feldspar.study.family import run_family, targets_of_widths

    loaded = language_recipe(load_recipe(recipe))
    targets = None
    if widths is not None:
        targets = targets_of_widths(loaded.recipe.model.dense, widths, depth)
    build_missing(loaded)
    return run_family(
        loaded.reference,
        loaded.overrides,
        _study_folder(out, loaded.recipe.name, "scaling"),
        targets=targets,
        convention=convention,
        workers=workers,
    )


def coordinate_check(
    recipe: RecipeLike, out: PathLike | None = None, *, quick: bool = False
) -> CoordinateCheck:
    """Check at small sizes that activations keep their size as width, density and depth change.

    Needs no data. ``out`` is the folder of the report; without it none is written. Raises UserError
    for values in ``study.vary`` that the check's models cannot have.
    """
    from feldspar.recipe.load import language_recipe
    from feldspar.study.coordinate_check import check_recipe
    from feldspar.study.coordinate_page import write_check

    loaded = language_recipe(load_recipe(recipe))
    with loaded.locating_errors():
        check = check_recipe(loaded.recipe, quick)
    if out is not None:
        write_check(check, path_of(out, "out"))
    return check


def transfer(
    recipe: RecipeLike,
    out: PathLike | None = None,
    *,
    trials: int | None = None,
    workers: int | None = None,
) -> Transfer:
    """Tune a small model, and check the found learning rate at the other sizes of the study.

    ``trials`` replaces the recipe's ``study.search.trials``. The same call again continues where it
    was stopped; the report lies in the folder. Raises UserError for a recipe without a study.
    """
    from feldspar.recipe.load import language_recipe

    if workers is not None and workers < 1:
        raise UserError("--workers: at least one run at a time", found=workers)
    more = None if trials is None else [f"study.search.trials={trials}"]
    loaded = language_recipe(load_recipe(load_recipe(recipe), more))
    from feldspar.prepare.build import build_missing
    from feldspar.study.transfer import run_transfer
    from feldspar.study.transfer_report import check_report_extra, write_transfer
    from feldspar.study.trials import default_workers

    check_report_extra()
    build_missing(loaded)
    found = run_transfer(
        loaded.reference,
        loaded.overrides,
        _study_folder(out, loaded.recipe.name, "transfer"),
        workers=workers or default_workers(loaded.recipe),
    )
    write_transfer(found)
    return found


def fit_batch_schedule(
    run: PathLike,
    minimum: int,
    maximum: int,
    *,
    quantum: int | None = None,
    gain: float = 0.5,
    level_ratio: float = 2**0.5,
    phase: str | None = None,
) -> dict[str, Any]:
    """Fit a fixed schedule of batch sizes to the gradient noise scale that a run measured.

    Batches grow from ``minimum`` to ``maximum`` sequences in multiples of ``quantum``. The result
    holds the override for the recipe and the predicted saving. Raises UserError for a run that
    measured no noise scale.
    """
    from feldspar.train.batch_log import fit_schedule

    return fit_schedule(
        path_of(run, "run"),
        minimum,
        maximum,
        quantum=quantum,
        gain=gain,
        level_ratio=level_ratio,
        phase=phase,
    )


def reproduce(
    paper: str,
    out: PathLike | None = None,
    *,
    scale: Literal["quick", "small", "paper"] = "small",
    workers: int | None = None,
) -> dict[str, Any]:
    """Run the experiment of a paper and judge its claims; return the record of claims and figures.

    ``small`` takes up to an hour on two cores, ``quick`` is shorter and judges only what is
    counted, ``paper`` is the paper's own size. The same call again goes on. Raises UserError for an
    unknown paper.
    """
    from feldspar.core.execution import available_cores
    from feldspar.papers.catalogue import paper_named
    from feldspar.papers.kit.experiment import run_experiment
    from feldspar.papers.kit.paper import Scale
    from feldspar.papers.kit.report import write_report as write_claims

    chosen, wanted = paper_named(paper), Scale(scale)
    folder = Path("runs") / "reproduce" / f"{paper}-{scale}" if out is None else path_of(out, "out")
    side_by_side = workers or (1 if wanted is Scale.PAPER else available_cores())
    return write_claims(run_experiment(chosen, wanted, folder, side_by_side), folder)


def write_report(runs: PathLike | Sequence[PathLike], out: PathLike | None = None) -> Path:
    """Write one self-contained HTML page about one or several runs; return its path.

    By default the page lies in the first run's folder. Raises UserError for a folder without a run.
    """
    from feldspar.report.run_report import write_run_report

    given = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    if not given:
        raise UserError("runs: at least one run folder is needed")
    return write_run_report(
        [path_of(each, "runs") for each in given], None if out is None else path_of(out, "out")
    )


def _points_of(
    paths: Sequence[str], convention: str, metric: str
) -> tuple[list[Point], Basis | None]:
    """Return the points of one CSV file, or of run folders with their basis."""
    from feldspar.plan.laws.law_points import read_points

    folders = [Path(path) for path in paths if Path(path).is_dir()]
    if not folders and len(paths) == 1:
        return read_points(Path(paths[0])), None
    others = [path for path in paths if not Path(path).is_dir()]
    if others:
        raise UserError(
            "points come from one CSV file or from run folders, not from both", found=others[0]
        )
    from feldspar.study.run_points import read_runs

    runs = read_runs(folders, convention=convention, metric=metric)
    return [item.point for item in runs], runs[0].basis


def _study_folder(out: PathLike | None, name: str, kind: str) -> Path:
    return Path("runs") / f"{name}-{kind}" if out is None else path_of(out, "out")
