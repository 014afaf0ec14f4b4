"""The examples of a recipe's phases: pairs and messages, read from files, encoded with the shards'
tokenizer, packed.
"""

from collections.abc import Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.phase_data import MessagesData, PairsData
from feldspar.tokens.sequences.example_reader import ExampleReader, RowLayout
from feldspar.tokens.sequences.messages import (
    chat_encoder,
    message_examples,
    read_messages,
    read_template,
)
from feldspar.tokens.sequences.pairs import (
    PairLayout,
    encode_pairs,
    pair_examples,
    read_pairs,
)
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

ExampleReaders = Mapping[int, ExampleReader]
"""Readers of pairs and messages by the index of the phase."""
EXAMPLES_KEY = "pairs"
"""The key of the digests of examples in a checkpoint's state."""
TEMPLATE_KEY = "chat_template"
"""The key of the chat template in a checkpoint's state, where it is not the tokenizer's."""


def open_examples(
    recipe: Recipe, shards: ShardSet, *, where_at_hand: bool = False
) -> ExampleReaders:
    """Return the reader of each phase of pairs or messages.

    Raises UserError for a file that is missing (unless only what is ``where_at_hand`` is wanted) or
    does not fit its template, and for examples that are too long.
    """
    readers = {}
    for index, phase in enumerate(recipe.phases):
        data = phase.examples
        if data is None or (where_at_hand and not data.path.is_file()):
            continue
        try:
            tokenizer = TextTokenizer.load(shards.tokenizer, shards.end_of_document)
            if isinstance(data, PairsData):
                layout: RowLayout = pair_layout(recipe, index, tokenizer)
                pairs = encode_pairs(read_pairs(data.path, data.template), tokenizer)
                examples = pair_examples(pairs, pair_layout(recipe, index, tokenizer))
            else:
                layout = row_layout(recipe, index, tokenizer)
                examples = message_examples(
                    read_messages(data.path),
                    chat_encoder(tokenizer, data),
                    layout.longest,
                    cut=data.truncate == "turns",
                )
            readers[index] = ExampleReader(
                examples,
                layout,
                seed=recipe.seed,
                phase=phase.name,
                on_target=phase.loss.on == "target",
            )
        except UserError as error:
            error.what = f"phases.{index}.data: {error.what}"
            raise
    return readers


def row_layout(recipe: Recipe, phase_index: int, tokenizer: TextTokenizer) -> RowLayout:
    """Return the layout of the rows of a phase."""
    return RowLayout(
        longest=recipe.context_length(recipe.phases[phase_index]) + 1,
        end_of_document_id=tokenizer.end_of_document_id,
        first_prompt_id=recipe.model.vocab_size or tokenizer.vocab_size,
    )


def pair_layout(recipe: Recipe, phase_index: int, tokenizer: TextTokenizer) -> PairLayout:
    """Return how a phase lays out its pairs. The recipe's phase must read pairs."""
    phase = recipe.phases[phase_index]
    assert phase.pairs is not None, "asked of phases of pairs only"
    prompt, rows = phase.soft_prompt, row_layout(recipe, phase_index, tokenizer)
    return PairLayout(
        rows.longest,
        rows.end_of_document_id,
        rows.first_prompt_id,
        prompt_length=phase.soft_prompt_length,
        place="between" if prompt is None else prompt.place,
        truncate=phase.pairs.truncate == "source",
        begin_ids=tokenizer.begin_ids,
    )


def pass_tokens(recipe: Recipe, examples: ExampleReaders) -> dict[int, int]:
    """Return the tokens of one pass over the examples of each phase, padding included."""
    return {
        index: reader.n_rows * recipe.context_length(recipe.phases[index])
        for index, reader in examples.items()
    }


def examples_to_state(recipe: Recipe, phase_index: int, examples: ExampleReaders) -> dict[str, Any]:
    """Return the entries of a checkpoint's state on the examples, in a phase of the recipe."""
    state: dict[str, Any] = {
        EXAMPLES_KEY: {str(index): reader.digest for index, reader in examples.items()}
    }
    own = [
        phase.data.template
        for phase in recipe.phases[: phase_index + 1]
        if isinstance(phase.data, MessagesData)
    ]
    if own and own[-1] is not None:
        state[TEMPLATE_KEY] = read_template(own[-1])
    return state


def check_same_examples(state: Mapping[str, Any], examples: ExampleReaders) -> None:
    """Raise UserError when examples that a checkpoint's run has begun to read have changed."""
    for index, digest in state.get(EXAMPLES_KEY, {}).items():
        begun = int(index) <= state["phase"]
        if begun and (int(index) not in examples or examples[int(index)].digest != digest):
            raise UserError(
                f"phases.{index}.data: the examples are not those that the run was trained on",
                do="restore the file that the run was started with, or choose another --out",
            )
