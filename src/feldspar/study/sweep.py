"""Train a grid of values, each point with several seeds.

Run folders are named by the values that differ, such as
``learning_rate=0.0078125,sparsity=0.75,seed=3``. The same sweep again reads finished runs and
trains only those that are missing.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from feldspar.core.files import digest_of
from feldspar.recipe.load import load_recipe
from feldspar.study.trials import TRAIN_LOSS, Trial, TrialResult, run_trials

NAME_LIMIT = 120
"""Longest name in characters; file systems allow 255 bytes."""


@dataclass(frozen=True)
class SweepPoint:
    """One point of the grid and its runs, one for each seed."""

    values: dict[str, Any]
    results: tuple[TrialResult, ...]

    @property
    def scores(self) -> tuple[float, ...]:
        """Score of each seed; infinite if the run diverged."""
        return tuple(result.score for result in self.results)

    @property
    def score(self) -> float:
        """Mean over the seeds; infinite if one of them diverged."""
        return sum(self.scores) / len(self.scores)

    @property
    def spread(self) -> float:
        """Sample standard deviation over the seeds; 0 for one seed, NaN after divergence."""
        if len(self.scores) == 1:
            return 0.0
        squares = sum((score - self.score) ** 2 for score in self.scores)
        return math.sqrt(squares / (len(self.scores) - 1))


def run_sweep(
    recipe: str,
    overrides: Sequence[str],
    grid: Mapping[str, Sequence[Any]],
    folder: Path,
    *,
    seeds: int = 1,
    score: str = TRAIN_LOSS,
    workers: int = 1,
) -> list[SweepPoint]:
    """Train ``recipe`` (file or shipped name) at all combinations of ``grid`` and return the
    points.

    The last key of ``grid`` varies fastest. ``overrides`` (``key=value``) apply to all runs;
    ``grid`` maps dotted keys of the recipe to values. The ``seeds`` runs of each point use the
    recipe's seed and those after it. Run folders are ``folder/NAME`` (see ``run_name``), so sweeps
    with other overrides need other folders. ``workers`` processes of one thread train side by side.
    Raises the errors of ``run_trials``.
    """
    first_seed = load_recipe(recipe, list(overrides)).recipe.seed
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    trials = [
        trial_of(point, first_seed + index, overrides) for point in points for index in range(seeds)
    ]
    results = run_trials(recipe, trials, folder, score=score, workers=workers)
    return [
        SweepPoint(point, tuple(results[index * seeds : (index + 1) * seeds]))
        for index, point in enumerate(points)
    ]


def trial_of(values: Mapping[str, Any], seed: int, overrides: Sequence[str] = ()) -> Trial:
    """Return the run of one point with one seed, with ``overrides`` applied."""
    numbered = {**values, "seed": seed}
    return Trial(run_name(numbered), (*overrides, *as_overrides(numbered)))


def as_overrides(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return dotted keys and plain values as ``key=value`` overrides."""
    return tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items())


def run_name(values: Mapping[str, Any]) -> str:
    """Return a folder name that identifies ``values``: ``learning_rate=0.0078125,seed=3``.

    A name that is too long is cut and ends with a digest of all values.
    """
    shown = short_names(values)
    parts = [f"{shown[key]}={_plain(value)}" for key, value in values.items()]
    name = ",".join(parts)
    if len(name) <= NAME_LIMIT:
        return name
    digest = digest_of(*as_overrides(values))[:12]
    return f"{name[: NAME_LIMIT - len(digest) - 1]}-{digest}"


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return each dotted key, shortened to the fewest last parts that are unique."""
    parts = {key: key.split(".") for key in keys}
    shown = {}
    for key, own in parts.items():
        others = [other for name, other in parts.items() if name != key]
        length = next(
            (
                length
                for length in range(1, len(own))
                if all(other[-length:] != own[-length:] for other in others)
            ),
            len(own),
        )
        shown[key] = ".".join(own[-length:])
    return shown


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")
