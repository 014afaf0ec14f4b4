"""How often trained runs find the label of held-out pairs, by likelihood."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from feldspar.core.progress import progress
from feldspar.evaluate.tasks.labels import likeliest_labels
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.phase_data import PairTemplate
from feldspar.tokens.sequences.pairs import PairText, encode_pairs, read_pairs
from feldspar.train.load import load_run
from feldspar.train.pairs import label_baselines, labelled_phase, pair_layout
from feldspar.train.text_model import text_model_of


def label_accuracies(runs: Sequence[Path], file_name: str) -> list[float]:
    """The share of right labels of each run.

    ``file_name`` lies beside the pairs that the run was fine-tuned on. Raises UserError where it is
    missing.
    """
    found = []
    with progress("labels", len(runs), "models") as advance:
        for folder in runs:
            run = load_run(folder)
            index, template, texts = _held_out(run.recipe, file_name)
            model = text_model_of(run)
            pairs = encode_pairs(texts, model.tokenizer)
            layout = pair_layout(run.recipe, index, model.tokenizer)
            answers = likeliest_labels(model, pairs, layout, template)
            found.append(
                fmean(own == pair.labels for own, pair in zip(answers, pairs, strict=True))
            )
            advance(1)
    return found


def accuracies_without_a_model(run: Path, file_name: str) -> dict[str, float]:
    """What the most frequent label and a bag of words find on the same pairs."""
    recipe = load_recipe(str(run)).recipe
    index, _, texts = _held_out(recipe, file_name)
    beside = label_baselines(recipe, index, texts)
    return {name: figures["accuracy"] for name, figures in beside.items()}


def _held_out(recipe: Recipe, file_name: str) -> tuple[int, PairTemplate, list[PairText]]:
    """The phase that learned labels, its template, and the pairs of a file beside its own."""
    index, template = labelled_phase(recipe)
    data = recipe.phases[index].pairs
    assert data is not None, "a labelled phase"
    return index, template, read_pairs(data.path.with_name(file_name), template)
