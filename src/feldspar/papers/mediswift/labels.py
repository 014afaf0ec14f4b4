"""Right answers to held-out statements: of fine-tuned models, and of rules that need no model."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean

from feldspar.core.progress import progress
from feldspar.corpus.ontology import BETWEEN_NAMES
from feldspar.evaluate.baselines.bag_of_words import BagOfWords, words_of
from feldspar.evaluate.tasks.labels import likeliest_labels
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.phase_data import PairTemplate
from feldspar.tokens.sequences.pairs import PairText, encode_pairs, read_pairs
from feldspar.train.examples import pair_layout
from feldspar.train.load import load_run, text_model_of
from feldspar.train.pairs import label_baselines, labelled_phase

VALIDATION, HELD_OUT = "kinds-validation.jsonl", "kinds-test.jsonl"
"""Statements that rates are chosen by, and those that nothing was chosen by."""
MOST_FREQUENT, WORDS_BY_PLACE = "most frequent label", "bag of words of each name"


def accuracies(runs: Sequence[Path], first: int | None) -> list[float]:
    """Return the share of right answers of each run to the ``first`` held-out statements."""
    found = []
    with progress("labels", len(runs), "models") as advance:
        for folder in runs:
            found.append(accuracy(folder, HELD_OUT, first))
            advance(1)
    return found


@cache
def accuracy(folder: Path, file_name: str, first: int | None) -> float:
    """Return the share of right answers of a run to the ``first`` pairs of a file, or to all.

    ``file_name`` lies beside the pairs that the run was fine-tuned on. Raises UserError where it is
    missing.
    """
    run = load_run(folder)
    index, template, texts = _held_out(run.recipe, file_name)
    model = text_model_of(run)
    pairs = encode_pairs(texts[:first], model.tokenizer)
    layout = pair_layout(run.recipe, index, model.tokenizer)
    answers = likeliest_labels(model, pairs, layout, template)
    return fmean(own == pair.labels for own, pair in zip(answers, pairs, strict=True))


def accuracies_without_a_model(run: Path, first: int | None) -> dict[str, float]:
    """Return the accuracies of rules that were fitted to the pairs that a run was fine-tuned on.

    These are the most frequent label, a bag of words, and a bag of words that tells the two names
    apart.
    """
    recipe = load_recipe(str(run)).recipe
    index, template, texts = _held_out(recipe, HELD_OUT)
    data = recipe.phases[index].pairs
    assert data is not None, "a labelled phase"
    beside = label_baselines(recipe, index, texts[:first])
    found = {name: figures["accuracy"] for name, figures in beside.items()}
    return found | {WORDS_BY_PLACE: by_place(read_pairs(data.path, template), texts[:first])}


def by_place(learned: Sequence[PairText], asked: Sequence[PairText]) -> float:
    """Return the accuracy of naive Bayes over words that are marked by the name they stand in."""
    texts = [marked(pair.source) for pair in learned]
    words = BagOfWords(texts, [pair.labels[0] for pair in learned])
    return fmean(words.label(marked(pair.source)) == pair.labels[0] for pair in asked)


def marked(statement: str) -> str:
    """Return the words of both names of a statement, each with a mark of its name."""
    first, _, second = statement.partition(BETWEEN_NAMES)
    names = {"first_": first, "second_": second}
    return " ".join(mark + word for mark, name in names.items() for word in words_of(name))


def _held_out(recipe: Recipe, file_name: str) -> tuple[int, PairTemplate, list[PairText]]:
    """Return the phase that learned labels, its template, and the pairs of a file beside them."""
    index, template = labelled_phase(recipe)
    data = recipe.phases[index].pairs
    assert data is not None, "a labelled phase"
    return index, template, read_pairs(data.path.with_name(file_name), template)
