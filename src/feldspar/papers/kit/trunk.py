"""Trunks: small models that have learnt to read, from which the runs of several papers start.

A trunk is trained once for each seed, in a folder that all experiments share.
"""

from pathlib import Path

from feldspar.papers.kit.paper import Data, Scale, Stage, start_from_run
from feldspar.study.trials import Trial

TRUNK_STAGE = TRUNK_RECIPE = "trunk"
TRUNK_DATA = Data(TRUNK_RECIPE)
TRUNK_SCORE = "validation/bits_per_byte"
TRUNKS = 3
"""The number of trunks; run s of an experiment starts from trunk s modulo this number."""
QUICK = (
    "phases.0.length=20 steps",
    "evaluation.every=100% of run",
    "evaluation.validation_sequences=16",
)
"""A quick run's trunk; validation would take longer than its training."""


def trunk_stage(scale: Scale) -> Stage:
    """Return the stage that trains the missing trunks; a quick run has one, which is short."""
    return Stage(
        TRUNK_STAGE,
        TRUNK_RECIPE,
        lambda _: _trials(scale),
        TRUNK_SCORE,
        keeps_weights=True,
        folder=_root(scale),
    )


def trunk_folder(scale: Scale, seed: int) -> Path:
    """Return the run folder of the trunk from which the runs of ``seed`` start."""
    return _root(scale) / str(seed % _count(scale))


def start_from_trunk(scale: Scale, seed: int) -> str:
    """Return the override that lets a run of ``seed`` start from its trunk."""
    return start_from_run(trunk_folder(scale, seed), TRUNK_RECIPE)


def _trials(scale: Scale) -> list[Trial]:
    shortened = QUICK if scale is Scale.QUICK else ()
    return [Trial(str(seed), (*shortened, f"seed={seed}")) for seed in range(_count(scale))]


def _count(scale: Scale) -> int:
    return 1 if scale is Scale.QUICK else TRUNKS


def _root(scale: Scale) -> Path:
    return Path("runs") / ("trunks-quick" if scale is Scale.QUICK else "trunks")
