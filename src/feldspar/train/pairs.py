"""The pairs of a recipe's phases: read from files, encoded with the shards' tokenizer, packed."""

from collections.abc import Mapping, Sequence
from typing import Any

from feldspar.core.errors import UserError
from feldspar.evaluate.baselines.bag_of_words import BagOfWords
from feldspar.evaluate.tasks.labels import label_figures
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.phase_data import PairTemplate
from feldspar.tokens.sequences.pair_reader import PairReader
from feldspar.tokens.sequences.pairs import (
    PairLayout,
    PairText,
    encode_pairs,
    read_pairs,
)
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

Pairs = Mapping[int, PairReader]
"""Pairs by the index of the phase."""
PAIRS_KEY = "pairs"
"""The key of the pairs in a checkpoint's state."""


def open_pairs(recipe: Recipe, shards: ShardSet, *, where_at_hand: bool = False) -> Pairs:
    """Return the reader of each phase of pairs.

    Raises UserError for a file that is missing (unless only what is ``where_at_hand`` is wanted) or
    does not fit its template, and for pairs that are too long.
    """
    readers = {}
    for index, phase in enumerate(recipe.phases):
        data = phase.pairs
        if data is None or (where_at_hand and not data.path.is_file()):
            continue
        try:
            pairs = read_pairs(data.path, data.template)
            tokenizer = TextTokenizer.load(shards.tokenizer, shards.end_of_document)
            readers[index] = PairReader(
                encode_pairs(pairs, tokenizer),
                pair_layout(recipe, index, tokenizer),
                seed=recipe.seed,
                phase=phase.name,
                on_target=phase.loss.on == "target",
            )
        except UserError as error:
            error.what = f"phases.{index}.data: {error.what}"
            raise
    return readers


def pair_layout(recipe: Recipe, phase_index: int, tokenizer: TextTokenizer) -> PairLayout:
    """Return how a phase lays out its pairs. The recipe's phase must read pairs."""
    phase = recipe.phases[phase_index]
    assert phase.pairs is not None, "asked of phases of pairs only"
    prompt = phase.soft_prompt
    return PairLayout(
        longest=recipe.context_length(phase) + 1,
        end_of_document_id=tokenizer.end_of_document_id,
        first_prompt_id=recipe.model.vocab_size or tokenizer.vocab_size,
        prompt_length=phase.soft_prompt_length,
        place="between" if prompt is None else prompt.place,
        truncate=phase.pairs.truncate == "source",
        begin_ids=tokenizer.begin_ids,
    )


def pass_tokens(recipe: Recipe, pairs: Pairs) -> dict[int, int]:
    """Return the tokens of one pass over the pairs of each phase, padding included."""
    return {
        index: reader.n_rows * recipe.context_length(recipe.phases[index])
        for index, reader in pairs.items()
    }


def pairs_to_state(pairs: Pairs) -> dict[str, Any]:
    """Return the entry of a checkpoint's state on the pairs."""
    return {PAIRS_KEY: {str(index): reader.digest for index, reader in pairs.items()}}


def check_same_pairs(state: Mapping[str, Any], pairs: Pairs) -> None:
    """Raise UserError when pairs that a checkpoint's run has begun to read have changed."""
    for index, digest in state.get(PAIRS_KEY, {}).items():
        begun = int(index) <= state["phase"]
        if begun and (int(index) not in pairs or pairs[int(index)].digest != digest):
            raise UserError(
                f"phases.{index}.data: the pairs are not those that the run was trained on",
                do="restore the file that the run was started with, or choose another --out",
            )


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
