"""Bilingual adaptation (2407.12869): an English model learns a cipher of English, or Russian.

Fixed before any run that is reported: recipes, steps, seeds, what is measured and the tolerances.
Every seed has a base model of its own. New rows begin in four ways, each measured before training
and after the first stage; from the first stage of ``subword_mean`` the second goes on with three
mixtures; beside it a run trains everything from the start, for as many tokens. The open scale does
the same to SmolLM2-135M, without that run, and trains only ``subword_mean``. There a seed chooses
the rows that are drawn, the order of the text and the held-out windows.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.paper import Data, Figures, Findings, Paper, Results, Scale, Stage, by_name
from feldspar.papers.kit.stated import StatedClaims
from feldspar.recipe.load import load_recipe
from feldspar.report.figures import Figure, Series, line_figure
from feldspar.report.page import Section, Table
from feldspar.runtime.run_folder import RunFolder
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial, TrialResult
from feldspar.tokens.shards.shard_folder import ShardSet

BASE, RECIPE, LARGE = "bilingual/base", "bilingual/small", "bilingual/ablation"
OPEN = "bilingual/open"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3, Scale.OPEN: 3, Scale.PAPER: 1}
DRAWS = 5
"""Seeds of what is measured before training, at the open scale."""
QUICK_STEPS = 20
OLD_VOCABULARY = Data(RECIPE, ("choose.vocabulary=base",))
ENGLISH, NEW, OPEN_NEW, LARGE_NEW = "english", "cipher", "russian", "arabic"
"""The old language and the new one, at small scale, on an open model, and at the paper's scale."""
INITIALISATIONS = ("subword_mean", "random", "mean", "normal_matched")
"""The initial values of new rows; training goes on with the first."""
NONE = "no extension"

Bits = Mapping[str, Mapping[str, Sequence[float]]]
"""Held-out bits per byte of every seed, by what was trained and by language."""

MIXTURES = {"1:1": 0.5, "9:1": 0.9, "1:0": 1.0}
"""Share of the new language in the second stage; the rest is English."""


def recipe_of(scale: Scale) -> str:
    """Return the recipe of an experiment below the paper's scale."""
    return OPEN if scale is Scale.OPEN else RECIPE


def new_language(scale: Scale) -> str:
    """Return the source of the new language."""
    return {Scale.OPEN: OPEN_NEW, Scale.PAPER: LARGE_NEW}.get(scale, NEW)


def trained_rows(scale: Scale) -> tuple[str, ...]:
    """Return the initialisations that the first stage trains."""
    return INITIALISATIONS[:1] if scale is Scale.OPEN else INITIALISATIONS


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return base models, rows, both stages; at the paper's scale two mixtures of its ablation."""
    if scale is Scale.PAPER:
        score = f"validation/{LARGE_NEW}/bits_per_byte"
        return (Stage("second", LARGE, lambda _: paper_trials(), score),)
    score, recipe = f"validation/{new_language(scale)}/bits_per_byte", recipe_of(scale)
    adapted = (
        Stage("begun", recipe, lambda results: begun_trials(results, scale), score),
        Stage("first", recipe, lambda results: first_trials(results, scale), score, True),
        Stage("second", recipe, lambda results: second_trials(results, scale), score),
    )
    if scale is Scale.OPEN:
        return adapted
    return (
        Stage("base", BASE, lambda _: base_trials(scale), score, keeps_weights=True),
        *adapted,
        Stage("once", RECIPE, lambda results: once_trials(results, scale), score),
    )


def paper_trials() -> list[Trial]:
    """Return the 7B model with much English and with little."""
    return [trial_of({"choose.mixture": name}, 0) for name in ("1:1", "9:1")]


def base_trials(scale: Scale) -> list[Trial]:
    """Return the English model of each seed."""
    short = [f"phases.0.length={3 * QUICK_STEPS} steps"] if scale is Scale.QUICK else []
    return [trial_of({}, seed, short) for seed in range(SEEDS[scale])]


def begun_trials(results: Results, scale: Scale) -> list[Trial]:
    """Return single steps at rate 0, which only measure: the base, and each kind of rows."""
    both = ["embedding", "output"]
    alone = only_phase(0, scale, length="1 steps", learning_rate=0, trainable=both)
    points = {NONE: {"choose.vocabulary": "base"}} | {name: _rows(name) for name in INITIALISATIONS}
    trials = [
        trial_of(point, seed, [alone, *_start(results, "base", seed, scale)])
        for name, point in points.items()
        for seed in range(begun_seeds(scale))
    ]
    return [Trial(f"untrained,{trial.name}", trial.overrides) for trial in trials]


def begun_seeds(scale: Scale) -> int:
    """Return the seeds with which each initialisation is measured before training.

    A seed also chooses the held-out windows, so that rows that are not drawn need seeds too.
    """
    return DRAWS if scale is Scale.OPEN else SEEDS[scale]


def first_trials(results: Results, scale: Scale) -> list[Trial]:
    """Return the first stage from each kind of rows."""
    return [
        trial_of(_rows(name), seed, [only_phase(0, scale), *_start(results, "base", seed, scale)])
        for name in trained_rows(scale)
        for seed in range(SEEDS[scale])
    ]


def second_trials(results: Results, scale: Scale) -> list[Trial]:
    """Return the second stage with each mixture, from the first stage's ``subword_mean``."""
    return [
        Trial(
            f"mixture={name.replace(':', '-')},seed={seed}",
            (
                only_phase(1, scale, mixture=_mixture(share, new_language(scale))),
                *_start(results, "first", seed, scale),
                "adapt=null",
                f"seed={seed}",
            ),
        )
        for name, share in MIXTURES.items()
        for seed in range(SEEDS[scale])
    ]


def once_trials(results: Results, scale: Scale) -> list[Trial]:
    """Return the runs that train everything in both stages."""
    short = [f"phases.{index}.length={QUICK_STEPS} steps" for index in (0, 1)]
    return [
        trial_of(
            {"choose.stages": "one"},
            seed,
            [*_start(results, "base", seed, scale), *(short if scale is Scale.QUICK else [])],
        )
        for seed in range(SEEDS[scale])
    ]


def only_phase(index: int, scale: Scale, **changes: Any) -> str:
    """Return the override that leaves one phase of the small recipe, with ``changes``."""
    values = load_recipe(recipe_of(scale)).tree["phases"][index]
    shortened = {"length": f"{QUICK_STEPS} steps"} if scale is Scale.QUICK else {}
    return "phases=" + json.dumps([values | shortened | changes])


def _rows(name: str) -> dict[str, str]:
    return {"adapt.embeddings.initialisation": name}


def _mixture(share: float, language: str) -> dict[str, float]:
    return {language: share} | ({ENGLISH: round(1 - share, 3)} if share < 1 else {})


def _start(results: Results, stage: str, seed: int, scale: Scale) -> list[str]:
    """Return the override that starts from a seed's run with ``INITIALISATIONS[0]``.

    The open model itself needs none: the recipe starts from it.
    """
    if scale is Scale.OPEN and stage == "base":
        return []
    runs = results.get(stage, ())
    path = str(runs[seed].folder) if runs else "runs/bilingual-base"
    return ["start_from=" + json.dumps({"type": "run", "path": path})]


def measure(results: Results, scale: Scale) -> Figures:
    """Read the bits per byte of both languages, and the tokens a word."""
    if scale is Scale.PAPER:
        return {"second": bits_of(results["second"], ("1:1", "9:1"), (LARGE_NEW, ENGLISH))}
    both, begun = (new_language(scale), ENGLISH), iter(results["begun"])
    counted = OPEN_DATA if scale is Scale.OPEN else (NOW, OLD_VOCABULARY)
    figures: Figures = {
        "begun": {
            name: bits_of(list(islice(begun, begun_seeds(scale))), (name,), both)[name]
            for name in (NONE, *INITIALISATIONS)
        },
        "first": bits_of(results["first"], trained_rows(scale), both),
        "second": bits_of(results["second"], tuple(MIXTURES), both),
        "words": {
            name: tokens_per_word(data, both)
            for name, data in zip(("new", "old"), counted, strict=True)
        },
    }
    if scale is not Scale.OPEN:
        figures["once"] = bits_of(results["once"], ("once",), both)["once"]
        figures["first_curves"] = first_curves(results["first"])
    return figures


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and drawings."""
    second = figures["second"]
    if scale is Scale.PAPER:
        section = bits_section("Mixtures", {"after": second}, LARGE_NEW)
        judged = (english_helps(second, LARGE_NEW, claims),)
        return Findings(judged, (section,), mixture_figure(second, LARGE_NEW))
    begun, first, once = figures["begun"], figures["first"], figures.get("once")
    new = new_language(scale)
    figure = stage_figure(figures["first_curves"]) if "first_curves" in figures else None
    if scale is Scale.OPEN:
        figure = way_figure(begun, first, second, new)
    judged = (
        token_tax(figures["words"], new, claims),
        rows_begin(begun, first, new, claims),
        first_stage_keeps(begun, first, claims),
        *(() if once is None else (two_stages(second, once, claims),)),
        both_gain(begun, first, second, new, claims),
        forgetting(second, claims),
        english_helps(second, new, claims),
    )
    ends = second if once is None else {**second, "once": once}
    sections = (
        bits_section("New rows", {"before training": begun, "after stage 1": first}, new, figure),
        bits_section("Mixtures of stage 2", {"after": ends}, new),
    )
    return Findings(judged, sections, figure)


def token_tax(
    words: Mapping[str, Mapping[str, float]], language: str, claims: StatedClaims
) -> Claim:
    """Judge the tokens a word of both languages, before and after the extension."""
    name = "token-tax"
    old, new = words["old"], words["new"]
    is_short = new[language] <= old[language] * claims.limit(name, "share")
    return claims.judged(
        name,
        f"{language} {old[language]:.2f} to {new[language]:.2f} tokens a word, English "
        f"{old[ENGLISH]:.2f} to {new[ENGLISH]:.2f}",
        held=is_short and new[ENGLISH] == old[ENGLISH],
    )


def rows_begin(begun: Bits, first: Bits, new: str, claims: StatedClaims) -> Claim:
    """Judge rows that know their pieces against rows that know nothing."""
    best, *others = INITIALISATIONS
    gains = {other: _gain(begun[best][new], begun[other][new]) for other in others}
    after = {
        other: f", {Gain.of(first[best][new], first[other][new]).lower_or_higher} after stage 1"
        for other in others
        if other in first
    }
    told = ", ".join(
        f"{gains[other].lower_or_higher} than of {other}{after.get(other, '')}" for other in others
    )
    return claims.lower("rows", f"bits per byte of {best} are {told}", *gains.values())


def first_stage_keeps(begun: Bits, first: Bits, claims: StatedClaims) -> Claim:
    """Judge English after training embeddings alone."""
    gain = _gain(first[INITIALISATIONS[0]][ENGLISH], begun[NONE][ENGLISH])
    return claims.kept(
        "first-stage",
        f"English bits per byte {gain.lower_or_higher} than of the base model",
        gain,
    )


def two_stages(second: Bits, once: Mapping[str, Sequence[float]], claims: StatedClaims) -> Claim:
    """Judge two stages against everything trained from the start."""
    english, new = (Gain.of(second["1:1"][own], once[own]) for own in (ENGLISH, NEW))
    return claims.lower(
        "two-stages",
        f"after as many tokens English is {english.lower_or_higher}, the cipher "
        f"{new.lower_or_higher}",
        english,
    )


def both_gain(begun: Bits, first: Bits, second: Bits, language: str, claims: StatedClaims) -> Claim:
    """Judge the gain of both languages in the second stage."""
    new = Gain.of(second["1:1"][language], first[INITIALISATIONS[0]][language])
    english = _gain(second["1:1"][ENGLISH], begun[NONE][ENGLISH])
    return claims.lower(
        "both-gain",
        f"the {language} text is {new.lower_or_higher} than after stage 1, English "
        f"{english.lower_or_higher} than of the base model",
        new,
        english,
    )


def forgetting(second: Bits, claims: StatedClaims) -> Claim:
    """Judge the new language alone against a tenth of English."""
    gain = Gain.of(second["9:1"][ENGLISH], second["1:0"][ENGLISH])
    return claims.lower(
        "forgetting",
        f"English with a tenth of it is {gain.lower_or_higher} than without",
        gain,
    )


def english_helps(second: Bits, language: str, claims: StatedClaims) -> Claim:
    """Judge much English against little, for the new language."""
    gain = Gain.of(second["1:1"][language], second["9:1"][language])
    return claims.lower(
        "english-helps",
        f"the new language with 1:1 is {gain.lower_or_higher} than with 9:1",
        gain,
    )


def _gain(ours: Sequence[float], base: Sequence[float]) -> Gain:
    """Return the gain over ``base`` for the seeds that both were measured with."""
    count = min(len(ours), len(base))
    return Gain.of(ours[:count], base[:count])


def bits_of(
    runs: Sequence[TrialResult], names: Sequence[str], languages: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Return the bits per byte of runs that come seed after seed for each name in turn."""
    return {
        name: {
            language: [run.metrics[f"validation/{language}/bits_per_byte"] for run in own]
            for language in languages
        }
        for name, own in by_name(runs, names).items()
    }


def tokens_per_word(data: Data, languages: Sequence[str]) -> dict[str, float]:
    """Return the tokens a word of each language's training text in the shards of ``data``."""
    settings = load_recipe(data.recipe, list(data.overrides)).recipe.shards
    assert settings is not None, "a shipped recipe"
    shards = ShardSet.open(settings.path)
    counts = {name: shards.counts("train", name) for name in languages}
    return {name: count.tokens_per_word or 0.0 for name, count in counts.items()}


def bits_section(
    title: str, groups: Mapping[str, Bits], new: str, figure: Figure | None = None
) -> Section:
    """Return a table: a row for each name, for each group the new language and English."""
    names = dict.fromkeys(name for group in groups.values() for name in group)
    header = ["", *(f"{language}, {group}" for group in groups for language in (new, ENGLISH))]
    rows = [
        [
            name,
            *(
                f"{fmean(group[name][language]):.4f}" if name in group else ""
                for group in groups.values()
                for language in (new, ENGLISH)
            ),
        ]
        for name in names
    ]
    words = "Held-out bits per byte, mean over seeds."
    words += " A letter of the cipher has two bytes." if new == NEW else ""
    return Section(title, [words], [Table(header, rows)], [figure] if figure else [])


def first_curves(runs: Sequence[TrialResult]) -> dict[str, dict[str, list[float]]]:
    """Average the new language through the first stage over seeds, for each kind of rows."""
    key = f"validation/{NEW}/bits_per_byte"
    found = {}
    for name, own in by_name(runs, INITIALISATIONS).items():
        curves = [
            {step["step"]: step[key] for step in RunFolder(run.folder).steps() if key in step}
            for run in own
        ]
        steps = sorted(curves[0])
        means = [fmean(curve[step] for curve in curves) for step in steps]
        found[name] = {"steps": steps, "bits_per_byte": means}
    return found


def stage_figure(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draw the new language through the first stage, a line for each kind of rows."""
    series = [
        Series(name, curve["steps"], curve["bits_per_byte"], "points")
        for name, curve in curves.items()
    ]
    return line_figure("The cipher in the first stage", series, "steps", "bits per byte")


def way_figure(begun: Bits, first: Bits, second: Bits, new: str) -> Figure:
    """Draw both languages from the base model to the end of stage 2, a line for each."""
    best, mixture = INITIALISATIONS[0], next(iter(MIXTURES))
    places = (begun[NONE], begun[best], first[best], second[mixture])
    series = [
        Series(name, list(range(len(places))), [fmean(at[name]) for at in places], "points")
        for name in (new, ENGLISH)
    ]
    steps = "base model, new rows, after stage 1, after stage 2"
    return line_figure("An open model learns a language", series, steps, "bits per byte")


def mixture_figure(second: Bits, language: str) -> Figure:
    """Draw both mixtures as points."""
    values = [fmean(by_language[language]) for by_language in second.values()]
    series = [Series(language, list(range(len(values))), values, "markers")]
    return line_figure("Mixtures", series, ", ".join(second), "bits per byte")


NOW = Data(RECIPE)
OPEN_DATA = (Data(OPEN), Data(OPEN, ("choose.vocabulary=base",)))
PAPER = Paper(
    name="bilingual",
    folder=Path(__file__).parent,
    data=Data(BASE),
    more_data=(NOW, OLD_VOCABULARY),
    open_data=OPEN_DATA,
    stages=stages,
    measure=measure,
    judge=judge,
)
