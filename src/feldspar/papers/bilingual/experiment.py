"""Bilingual adaptation (2407.12869): the trunk, and SmolLM2-135M, learn Ukrainian.

Fixed before any run that is reported: recipes, steps, seeds, what is measured and the tolerances.
On the trunk the rows of new tokens are trained first; from there everything is trained with three
mixtures, which read the same text of the new language in as many steps and differ in the text of
the old language beside it. One more arm trains everything from the start, in the steps of the
first mixture. On SmolLM2 only the first stage is trained, from each kind of rows.
"""

import json
from pathlib import Path
from typing import Any

from feldspar.papers.bilingual.claims import judge
from feldspar.papers.bilingual.figures import (
    INITIALISATIONS,
    LARGE_MIXTURES,
    LARGE_NEW,
    LARGE_OLD,
    MIXED,
    MIXTURES,
    NEW,
    NONE,
    TEXTS,
    bits_by_name,
    figures_on_open_model,
    figures_on_trunk,
    tokens_per_word,
)
from feldspar.papers.kit.paper import (
    Data,
    Figures,
    Paper,
    Results,
    Scale,
    Stage,
    start_from_run,
)
from feldspar.papers.kit.trunk import TRUNK_DATA, start_from_trunk, trunk_stage
from feldspar.recipe.load import load_recipe
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial

RECIPE, OPEN, LARGE = "bilingual/small", "bilingual/open", "bilingual/ablation"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 5, Scale.OPEN: 3}
DRAWS = 5
"""Seeds of what is measured before training, at the open scale: held-out windows and drawn rows."""
QUICK_STEPS = 20
CURVE = "evaluation.every=10 steps"
"""The distance of validations in the runs whose damage is measured."""
ROWS = "adapt.embeddings.initialisation"
BASE_VOCABULARY = ("choose.vocabulary=base",)
EXTENDED, OLD_VOCABULARY = Data(RECIPE), Data(RECIPE, BASE_VOCABULARY)
OPEN_EXTENDED, OPEN_OLD_VOCABULARY = Data(OPEN), Data(OPEN, BASE_VOCABULARY)


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the runs; at the paper's scale those of two mixtures of its ablation."""
    score = f"validation/{NEW}/bits_per_byte"
    if scale is Scale.PAPER:
        large = f"validation/{LARGE_NEW}/bits_per_byte"
        return (Stage("second", LARGE, lambda _: paper_trials(), large),)
    if scale is Scale.OPEN:
        return (
            Stage("begun", OPEN, lambda _: open_begun_trials(), score),
            Stage("first", OPEN, lambda _: open_first_trials(), score),
        )
    return (
        trunk_stage(scale),
        Stage("begun", RECIPE, lambda _: begun_trials(scale), score),
        Stage("first", RECIPE, lambda _: first_trials(scale), score, keeps_weights=True),
        Stage("second", RECIPE, lambda results: second_trials(results, scale), score),
        Stage("once", RECIPE, lambda _: once_trials(scale), score),
    )


def paper_trials() -> list[Trial]:
    """Return the 7B model with much English and with little."""
    return [trial_of({"choose.mixture": name}, 0) for name in ("1:1", "9:1")]


def begun_trials(scale: Scale) -> list[Trial]:
    """Return single steps at rate 0, which only measure: the trunk, and the trunk with rows."""
    return [
        trial_of(
            {"choose.vocabulary": vocabulary}, seed, [_still(RECIPE), start_from_trunk(scale, seed)]
        )
        for vocabulary in ("base", "extended")
        for seed in range(SEEDS[scale])
    ]


def first_trials(scale: Scale) -> list[Trial]:
    """Return the first stage."""
    return [
        trial_of({}, seed, [only_phase(RECIPE, 0, scale), start_from_trunk(scale, seed), CURVE])
        for seed in range(SEEDS[scale])
    ]


def second_trials(results: Results, scale: Scale) -> list[Trial]:
    """Return the second stage with each mixture, from the first stage."""
    return [
        Trial(
            f"mixture={name.replace(':', '-')},seed={seed}",
            (
                only_phase(RECIPE, 1, scale, f"choose.mixture={name}"),
                _from_first(results, seed),
                "adapt=null",
                CURVE if name == MIXTURES[0] else "evaluation.every=100% of run",
                f"seed={seed}",
            ),
        )
        for name in MIXTURES
        for seed in range(SEEDS[scale])
    ]


def once_trials(scale: Scale) -> list[Trial]:
    """Return the runs that train everything from the start, in the second stage's steps."""
    return [
        Trial(
            f"once,seed={seed}",
            (
                only_phase(RECIPE, 1, scale),
                start_from_trunk(scale, seed),
                CURVE,
                f"seed={seed}",
            ),
        )
        for seed in range(SEEDS[scale])
    ]


def open_begun_trials() -> list[Trial]:
    """Return single steps at rate 0 on the open model: itself, and with each kind of rows."""
    points: dict[str, dict[str, str]] = {NONE: {"choose.vocabulary": "base"}}
    points |= {name: {ROWS: name} for name in INITIALISATIONS}
    return [
        trial_of(point, seed, [_still(OPEN)]) for point in points.values() for seed in range(DRAWS)
    ]


def open_first_trials() -> list[Trial]:
    """Return the first stage of the open model from each kind of rows."""
    return [
        trial_of({ROWS: name}, seed)
        for name in INITIALISATIONS
        for seed in range(SEEDS[Scale.OPEN])
    ]


def only_phase(recipe: str, index: int, scale: Scale, *chosen: str, **changes: Any) -> str:
    """Return the override that leaves one phase of ``recipe``, with ``changes``."""
    values = load_recipe(recipe, list(chosen)).tree["phases"][index]
    shortened = {"length": f"{QUICK_STEPS} steps"} if scale is Scale.QUICK else {}
    return "phases=" + json.dumps([values | shortened | changes])


def _still(recipe: str) -> str:
    """Return the override of one step at rate 0, of one sequence."""
    both, one = ["embedding", "output"], {"sequences": 1}
    return only_phase(
        recipe, 0, Scale.SMALL, length="1 steps", learning_rate=0, trainable=both, batch=one
    )


def _from_first(results: Results, seed: int) -> str:
    """Return the override that starts from a seed's first stage."""
    runs = results.get("first", ())
    return start_from_run(runs[seed].folder if runs else "runs/bilingual-first", RECIPE)


def measure(results: Results, scale: Scale) -> Figures:
    """Read the bits per byte of each text, the damage on the way, and the tokens a word."""
    if scale is Scale.PAPER:
        languages = (LARGE_NEW, LARGE_OLD)
        return {"second": bits_by_name(results["second"], LARGE_MIXTURES, languages)}
    is_open = scale is Scale.OPEN
    old, new = (OPEN_OLD_VOCABULARY, OPEN_EXTENDED) if is_open else (OLD_VOCABULARY, EXTENDED)
    texts = (NEW, MIXED) if is_open else TEXTS
    words = {name: tokens_per_word(data, texts) for name, data in (("old", old), ("new", new))}
    return (figures_on_open_model if is_open else figures_on_trunk)(results, words)


PAPER = Paper(
    name="bilingual",
    folder=Path(__file__).parent,
    data=TRUNK_DATA,
    more_data=(EXTENDED, OLD_VOCABULARY),
    open_data=(OPEN_EXTENDED, OPEN_OLD_VOCABULARY),
    stages=stages,
    measure=measure,
    judge=judge,
)
