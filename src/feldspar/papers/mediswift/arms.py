"""The arms of width 96: what is pre-trained, what is fine-tuned, and the runs of both.

Each arm has learning rates of its own, for pre-training and for fine-tuning. They are tuned with
one seed that no claim rests on.
"""

import json
from collections.abc import Mapping, Sequence

from feldspar.papers.kit.paper import Results, Scale, Stage, values_of
from feldspar.papers.mediswift.labels import VALIDATION, accuracy
from feldspar.papers.mediswift.rates import RATE, TUNING_SEED, Curve, Curves, RateSearch, best_rate
from feldspar.papers.mediswift.time_arms import (
    ARM,
    DENSE,
    HALF,
    SMALL_DENSE,
    SPARSE,
    runs_by_arm,
)
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial, TrialResult

PRETRAINING, KINDS = "mediswift/pretraining", "mediswift/kinds"
SCORE = "validation/bits_per_byte"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 5}
QUICK = ("phases.0.length=10 steps", "evaluation.validation_sequences=16")
PAIRS = {Scale.QUICK: 40, Scale.SMALL: None}
"""The number of held-out statements that are asked; None for all."""

MASKS_KEPT, NOT_PRETRAINED = "75%, masks kept", "dense, not pre-trained"
PRETRAINED = {DENSE: "dense", HALF: "50%", SPARSE: "75%", SMALL_DENSE: "small-dense"}
"""Pre-trained arms by the choices of the recipe of pre-training."""
ARMS = PRETRAINED | {MASKS_KEPT: "masks-kept", NOT_PRETRAINED: "not-pretrained"}
"""Fine-tuned arms by the choices of the recipe of fine-tuning."""
BEGINS_AS = {arm: arm for arm in PRETRAINED} | {MASKS_KEPT: SPARSE}
"""The pre-trained arm that a fine-tuned one starts from; one starts from random weights."""
PRETRAINING_RATES = RateSearch((4e-3, 8e-3, 16e-3, 32e-3))
TUNING_RATES = RateSearch((5e-4, 1e-3, 2e-3, 4e-3))

RATES, TUNING = ("rates", "more-rates"), ("tuning", "more-tuning")
"""The stages that tune the rates of pre-training and of fine-tuning."""
PRETRAINED_STAGE, TUNED_STAGE = "pretraining", "arms"
STAGES = (*RATES, PRETRAINED_STAGE, *TUNING, TUNED_STAGE)
"""All stages, in order; each needs those before it."""


def arm_stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the stages: rates and runs of pre-training, then rates and runs of fine-tuning."""
    pretraining = {
        RATES[0]: lambda _: pretraining_rates(scale),
        RATES[1]: lambda results: more_pretraining_rates(results, scale),
        PRETRAINED_STAGE: lambda results: pretraining_trials(results, scale),
    }
    tuning = {
        TUNING[0]: lambda results: tuning_rates(results, scale),
        TUNING[1]: lambda results: more_tuning_rates(results, scale),
        TUNED_STAGE: lambda results: arm_trials(results, scale),
    }
    return tuple(
        Stage(name, recipe, trials, SCORE, keeps_weights=True)
        for recipe, stages in ((PRETRAINING, pretraining), (KINDS, tuning))
        for name, trials in stages.items()
    )


def pretraining_rates(scale: Scale) -> list[Trial]:
    """Return the runs of the two middle rates of every pre-trained arm."""
    return [
        _pretraining(arm, rate, TUNING_SEED, scale)
        for arm in PRETRAINED
        for rate in PRETRAINING_RATES.first
    ]


def more_pretraining_rates(results: Results, scale: Scale) -> list[Trial]:
    """Return the run of every pre-trained arm's next rate."""
    curves = pretraining_curves(results)
    return [
        _pretraining(arm, PRETRAINING_RATES.next(curves[arm]), TUNING_SEED, scale)
        for arm in PRETRAINED
    ]


def pretraining_trials(results: Results, scale: Scale) -> list[Trial]:
    """Return every pre-trained arm at its best rate with every seed, arms fastest."""
    curves = pretraining_curves(results)
    return [
        _pretraining(arm, _best(curves[arm], PRETRAINING_RATES), seed, scale)
        for seed in range(SEEDS[scale])
        for arm in PRETRAINED
    ]


def _pretraining(arm: str, rate: float, seed: int, scale: Scale) -> Trial:
    return trial_of({ARM: PRETRAINED[arm], RATE: rate}, seed, QUICK if scale is Scale.QUICK else ())


def tuning_rates(results: Results, scale: Scale) -> list[Trial]:
    """Return the runs of the two middle rates of every fine-tuned arm."""
    return [
        _tuning(arm, rate, TUNING_SEED, results, scale)
        for arm in ARMS
        for rate in TUNING_RATES.first
    ]


def more_tuning_rates(results: Results, scale: Scale) -> list[Trial]:
    """Return the run of every fine-tuned arm's next rate."""
    curves = tuning_curves(results, scale)
    return [
        _tuning(arm, TUNING_RATES.next(curves[arm]), TUNING_SEED, results, scale) for arm in ARMS
    ]


def arm_trials(results: Results, scale: Scale) -> list[Trial]:
    """Return every fine-tuned arm at its best rate with every seed, arms fastest."""
    curves = tuning_curves(results, scale)
    return [
        _tuning(arm, _best(curves[arm], TUNING_RATES), seed, results, scale)
        for seed in range(SEEDS[scale])
        for arm in ARMS
    ]


def _tuning(arm: str, rate: float, seed: int, results: Results, scale: Scale) -> Trial:
    shortened = QUICK if scale is Scale.QUICK else ()
    begin = _begin(BEGINS_AS[arm], seed, results) if arm in BEGINS_AS and results else ()
    return trial_of({ARM: ARMS[arm], RATE: rate}, seed, (*begin, *shortened))


def _begin(arm: str, seed: int, results: Results) -> tuple[str, ...]:
    """Return the override that starts from the pre-trained arm of a seed."""
    if seed == TUNING_SEED:
        folders = {_rate(run): run.folder for run in _runs_of(arm, PRETRAINED, RATES, results)}
        folder = folders[best_rate(pretraining_curves(results)[arm])]
    else:
        runs = results[PRETRAINED_STAGE]
        folder = runs_by_arm(runs, PRETRAINED)[arm][seed].folder
    return (f"start_from.path={json.dumps(folder.as_posix())}",)


def _best(curve: Curve, search: RateSearch) -> float:
    """Return the best rate of a curve; in a plan, which has none, a middle one."""
    return best_rate(curve) if curve else search.first[0]


def pretraining_curves(results: Results) -> Curves:
    """Return the bits per byte of every rate that was tried, by pre-trained arm."""
    return {
        arm: [(_rate(run), run.score) for run in _runs_of(arm, PRETRAINED, RATES, results)]
        for arm in PRETRAINED
    }


def tuning_curves(results: Results, scale: Scale) -> Curves:
    """Return the share of wrong answers of every rate that was tried, by fine-tuned arm."""
    return {
        arm: [
            (_rate(run), 1 - accuracy(run.folder, VALIDATION, PAIRS[scale]))
            for run in _runs_of(arm, ARMS, TUNING, results)
        ]
        for arm in ARMS
    }


def _runs_of(
    arm: str, choices: Mapping[str, str], stages: Sequence[str], results: Results
) -> list[TrialResult]:
    runs = [run for name in stages for run in results.get(name, ())]
    return [run for run in runs if values_of(run.trial)[ARM] == choices[arm]]


def _rate(run: TrialResult) -> float:
    return values_of(run.trial)[RATE]
