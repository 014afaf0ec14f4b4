"""The figures of the experiment on two languages, read from finished runs."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from feldspar.papers.kit.paper import Data, Figures, Results, by_name
from feldspar.papers.kit.validation_curve import Validation, validation_curve
from feldspar.recipe.load import load_recipe
from feldspar.runtime.run_folder import RunFolder
from feldspar.study.trials import TRAIN_LOSS, TrialResult
from feldspar.tokens.shards.shard_folder import ShardSet

NEW, MIXED, APART = "ukrainian", "django-docs", "shakespeare"
"""The new language, and two texts of the old one: one that is mixed in, and one that never is."""
ENGLISH = (MIXED, APART)
TEXTS = (NEW, *ENGLISH)
LARGE_NEW, LARGE_OLD = "arabic", "english"
"""Both languages at the paper's scale."""
INITIALISATIONS = ("subword_mean", "random", "mean", "normal_matched")
"""The initial values of new rows; both stages use the first."""
NONE = "no extension"
MIXTURES = ("1:1", "9:1", "1:0")
"""Text of the new language to text of the old one in the second stage."""
LARGE_MIXTURES = MIXTURES[:2]
WATCHED = 100
"""Steps in which the damage is measured, from the first that trains everything."""

Bits = Mapping[str, Sequence[float]]
"""Held-out bits per byte of every seed, by text."""
Damage = Mapping[str, Sequence[float]]
"""The old language's bits per byte on the way: ``peak`` and ``area`` by seed, and ``curve``, the
mean over seeds at ``steps``."""


def figures_on_trunk(results: Results, words: Mapping[str, Mapping[str, float]]) -> Figures:
    """Read the figures of the runs that start from the trunk."""
    begun = bits_by_name(results["begun"], (NONE, INITIALISATIONS[0]), TEXTS)
    two = by_name(results["second"], MIXTURES)[MIXTURES[0]]
    return {
        "begun": begun,
        "first": bits_of(results["first"], TEXTS),
        "second": bits_by_name(results["second"], MIXTURES, TEXTS),
        "once": bits_of(results["once"], TEXTS),
        "damage": {
            "two stages": damage(two, results["first"]),
            "everything at once": damage(results["once"]),
        },
        "words": words,
    }


def figures_on_open_model(results: Results, words: Mapping[str, Mapping[str, float]]) -> Figures:
    """Read the figures of the runs that start from an open model."""
    texts = (NEW, MIXED)
    first = by_name(results["first"], INITIALISATIONS)
    return {
        "begun": bits_by_name(results["begun"], (NONE, *INITIALISATIONS), texts),
        "first": bits_by_name(results["first"], INITIALISATIONS, texts),
        "area": {name: [mean_training_loss(run) for run in own] for name, own in first.items()},
        "words": words,
    }


def bits_by_name(
    runs: Sequence[TrialResult], names: Sequence[str], texts: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Return the bits per byte of runs that come seed after seed for each name in turn."""
    return {name: bits_of(own, texts) for name, own in by_name(runs, names).items()}


def bits_of(runs: Sequence[TrialResult], texts: Sequence[str]) -> dict[str, list[float]]:
    """Return the bits per byte at the end of runs, one for each seed."""
    return {
        text: [run.metrics[f"validation/{text}/bits_per_byte"] for run in runs] for text in texts
    }


def old_language(bits: Bits) -> list[float]:
    """Return the mean over the texts of the old language, seed by seed."""
    by_text = [bits[text] for text in ENGLISH if text in bits]
    return [fmean(own) for own in zip(*by_text, strict=True)]


def damage(runs: Sequence[TrialResult], before: Sequence[TrialResult] = ()) -> Damage:
    """Return the old language's loss in the first ``WATCHED`` steps that train everything.

    ``area`` is the mean over the validations of these steps, ``peak`` the highest of them; a
    validation of the runs ``before``, of the first stage, counts for the peak too.
    """
    curves = [_watched(validation_curve(run.folder)) for run in runs]
    earlier = [[_english(each) for each in validation_curve(run.folder)] for run in before]
    bits = [[_english(each) for each in curve] for curve in curves]
    peaks = [max(own + (earlier[seed] if earlier else [])) for seed, own in enumerate(bits)]
    return {
        "peak": peaks,
        "area": [fmean(own) for own in bits],
        "steps": [each.step for each in curves[0]],
        "curve": [fmean(own) for own in zip(*bits, strict=True)],
    }


def _watched(curve: Sequence[Validation]) -> list[Validation]:
    return [each for each in curve if each.step <= WATCHED]


def _english(validation: Validation) -> float:
    return fmean(validation.bits_per_byte[text] for text in ENGLISH)


def mean_training_loss(run: TrialResult) -> float:
    """Return the area under a run's training loss: its mean over all steps, in nats a token.

    Runs of one seed read the same tokens, so that their areas can be compared.
    """
    return fmean(step[TRAIN_LOSS] for step in RunFolder(run.folder).steps())


def tokens_per_word(data: Data, texts: Sequence[str]) -> dict[str, float]:
    """Return the tokens a word of each text for training in the shards of ``data``."""
    settings = load_recipe(data.recipe, list(data.overrides)).recipe.shards
    assert settings is not None, "a shipped recipe"
    shards = ShardSet.open(settings.path)
    counts = {name: shards.counts("train", name) for name in texts}
    return {name: count.tokens_per_word or 0.0 for name, count in counts.items()}
