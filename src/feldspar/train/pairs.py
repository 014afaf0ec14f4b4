"""The labels of a recipe's pairs: the phase that has them, and baselines fitted to its pairs."""

from collections.abc import Sequence

from feldspar.core.errors import UserError
from feldspar.evaluate.baselines.bag_of_words import BagOfWords
from feldspar.evaluate.tasks.labels import label_figures
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.phase_data import PairTemplate
from feldspar.tokens.sequences.pairs import PairText, read_pairs


def labelled_phase(recipe: Recipe) -> tuple[int, PairTemplate]:
    """Return the last phase whose pairs have labels, and its template.

    Raises UserError where no phase has labels.
    """
    for index in reversed(range(len(recipe.phases))):
        pairs = recipe.phases[index].pairs
        if pairs is not None and pairs.template.labels is not None:
            return index, pairs.template
    raise UserError(
        "the run has no phase of pairs with labels, so its template is unknown",
        do="fine-tune with data: {type: pairs, path: FILE, template: question_context_answer}",
    )


def label_baselines(
    recipe: Recipe, phase_index: int, asked: Sequence[PairText]
) -> dict[str, dict[str, float]]:
    """Score the most frequent label and a bag of words, fitted to a phase's pairs, on others.

    Empty where an example has several labels. Raises UserError when the phase's file is missing.
    """
    pairs = recipe.phases[phase_index].pairs
    assert pairs is not None and pairs.template.labels is not None, "a labelled phase"
    if pairs.template.labels.several:
        return {}
    learned = read_pairs(pairs.path, pairs.template)
    words = BagOfWords([pair.source for pair in learned], [pair.labels[0] for pair in learned])
    found = {
        "most frequent label": [(words.majority,) for _ in asked],
        "bag of words": [(words.label(pair.source),) for pair in asked],
    }
    true, values = [pair.labels for pair in asked], pairs.template.labels.values
    return {name: label_figures(true, labels, values).as_dict() for name, labels in found.items()}
