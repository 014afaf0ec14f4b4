"""A grid of values, each point trained with several seeds: the runs under a sweep's figure.

Run folders are named by what differs, ``learning_rate=0.0078125,sparsity=0.75,seed=3``; the same
sweep again reads what is finished and trains only what is missing.
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
"""Characters of a name; file systems take 255 bytes."""


@dataclass(frozen=True)
class SweepPoint:
    """One point of the grid and its runs, one a seed."""

    values: dict[str, Any]
    results: tuple[TrialResult, ...]

    @property
    def scores(self) -> tuple[float, ...]:
        """The score of each seed; infinite where the run diverged."""
        return tuple(result.score for result in self.results)

    @property
    def score(self) -> float:
        """The mean over the seeds; infinite as soon as one of them diverged."""
        return sum(self.scores) / len(self.scores)

    @property
    def spread(self) -> float:
        """The sample standard deviation over the seeds; 0 for one seed, NaN after divergence."""
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
    """Train ``recipe`` (file or shipped name) at every combination of ``grid``, the last key
    fastest, and return the points in that order.

    ``overrides`` (``key=value``) hold for all runs, ``grid`` maps dotted keys of the recipe to
    their values; ``seeds`` runs of each point take the recipe's seed and those after it. Run
    folders are ``folder/NAME`` (see ``run_name``), so that sweeps under other overrides need other
    folders. ``workers`` processes of one thread train side by side. Raises as ``run_trials``.
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
    """Return the run of one point with one seed, on top of ``overrides``."""
    numbered = {**values, "seed": seed}
    return Trial(run_name(numbered), (*overrides, *as_overrides(numbered)))


def as_overrides(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Dotted keys and plain values as ``key=value`` overrides."""
    return tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items())


def run_name(values: Mapping[str, Any]) -> str:
    """Return a folder name that tells ``values`` apart: ``learning_rate=0.0078125,seed=3``.

    A name that would be too long is cut and ends with a digest of all values.
    """
    shown = short_names(values)
    parts = [f"{shown[key]}={_plain(value)}" for key, value in values.items()]
    name = ",".join(parts)
    if len(name) <= NAME_LIMIT:
        return name
    digest = digest_of(*as_overrides(values))[:12]
    return f"{name[: NAME_LIMIT - len(digest) - 1]}-{digest}"


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return each dotted key with as few of its last parts as tell it from the others."""
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
