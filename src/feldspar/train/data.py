"""The training data of a recipe: shards opened and checked, each phase's mixture resolved."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from feldspar.core.errors import UserError
from feldspar.plan.sources import resolve_mixtures
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.plan.timeline import Timeline
from feldspar.recipe.load import LoadedRecipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.tokens import HuggingFaceTokenizer
from feldspar.tokens.sequences.infilled_documents import InfilledSource
from feldspar.tokens.sequences.infilled_stream import InfilledStream
from feldspar.tokens.sequences.phase_sequences import (
    PhaseData,
    SequenceReader,
    Sequences,
)
from feldspar.tokens.sequences.resolve import MeasuredTokens, ResolvedMixture, UnknownTokens
from feldspar.tokens.sequences.selected_documents import select_documents
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.extension import Extension
from feldspar.tokens.tokenizer.tokenizer_sources import tokenizer_from_settings
from feldspar.train.examples import ExampleReaders, open_examples, pass_tokens


@dataclass(frozen=True)
class TrainingData:
    """Shards, examples, and the data that each phase reads of them."""

    shards: ShardSet
    reader: "PhaseReader"
    mixtures: list[ResolvedMixture]
    examples: ExampleReaders


@dataclass(frozen=True)
class PhaseReader:
    """The sequences of every phase of a run, from shards or from examples."""

    shards: SequenceReader
    """Indices of the phases that read shards only, in order."""
    examples: ExampleReaders

    def read(self, phase_index: int, start: int, stop: int) -> Sequences:
        """Return the sequences ``start`` to ``stop`` - 1 of a phase. Raises the errors of its
        reader.
        """
        if phase_index in self.examples:
            return self.examples[phase_index].read(start, stop)
        before = sum(index < phase_index for index in self.examples)
        return self.shards.read(phase_index - before, start, stop)


def open_shards(recipe: Recipe) -> ShardSet:
    """Open the recipe's shards and check the sizes of their files.

    Raises UserError when they are absent or their vocabulary does not fit the model.
    """
    if recipe.shards is None:
        raise UserError(
            "shards: the recipe names no shards to train on",
            do="add shards: {path: FOLDER} to the recipe, then: feldspar tokens build RECIPE",
        )
    if not recipe.shards.path.is_dir():
        raise UserError(
            f"shards.path: {recipe.shards.path} does not exist",
            do="build the shards first: feldspar tokens build RECIPE",
        )
    shards = ShardSet.open(recipe.shards.path)
    rows = recipe.model.vocab_size
    if rows is not None and rows < shards.vocab_size:
        raise UserError(
            f"model.vocab_size: {rows} rows are fewer than the {shards.vocab_size} tokens of the "
            "shards' tokenizer",
            where=str(shards.path),
            allowed=f"at least {shards.vocab_size}",
        )
    if any(phase.trains_new_rows_only for phase in recipe.phases):
        first_new_token(shards)
    declared = getattr(recipe.tokenizer, "vocab_size", None)
    if declared is not None and declared != shards.vocab_size:
        raise UserError(
            f"tokenizer.vocab_size: the recipe's tokenizer has {declared} tokens, that of the "
            f"shards {shards.vocab_size}: they do not match",
            where=str(shards.path),
            do="build the shards again with this recipe, or correct the recipe",
        )
    return shards


def first_new_token(shards: ShardSet) -> int:
    """Return the first id that the shards' tokenizer adds to its base.

    Raises UserError when it extends none.
    """
    extension = Extension.load(shards.tokenizer)
    if extension is None:
        raise UserError(
            "trainable.rows: new, but the shards' tokenizer extends no other, so no row is new",
            where=str(shards.path),
            do="build the shards with a tokenizer of type extend, or train all rows",
        )
    return extension.base_vocab_size


def with_vocabulary(loaded: LoadedRecipe, size: int) -> LoadedRecipe:
    """Return the recipe; the shards give the model's vocabulary where the recipe sets none."""
    recipe = loaded.recipe
    if recipe.model.vocab_size is not None:
        return loaded
    model = recipe.model.model_copy(update={"vocab_size": recipe.vocabulary_rows(size)})
    return replace(loaded, recipe=recipe.model_copy(update={"model": model}))


def plan_loaded(loaded: LoadedRecipe) -> Plan:
    """Return a recipe's plan, by the sizes of its shards if they exist, else by declared sizes."""
    with loaded.locating_errors():
        recipe = loaded.recipe
        if recipe.shards is None or not recipe.shards.path.is_dir():
            return plan_recipe(_with_tokenizer_files(loaded).recipe)
        shards = open_shards(recipe)
        return plan_recipe(
            with_vocabulary(loaded, shards.vocab_size).recipe, source_tokens(shards, recipe)
        )


def plan_to_train(loaded: LoadedRecipe) -> Plan:
    """Return the plan of ``plan_loaded``. Raises UserError for mixtures that training refuses.

    Where the size of a source is needed and unknown, nothing is refused.
    """
    planned = plan_loaded(loaded)
    if planned.source_tokens:
        with suppress(UnknownTokens), loaded.locating_errors():
            resolve_mixtures(planned.recipe, planned.timeline, planned.source_tokens)
    return planned


def _with_tokenizer_files(loaded: LoadedRecipe) -> LoadedRecipe:
    """Return the recipe; a tokenizer whose files exist gives a vocabulary that it leaves out."""
    recipe, tokenizer = loaded.recipe, loaded.recipe.tokenizer
    if recipe.model.vocab_size is not None or not isinstance(tokenizer, HuggingFaceTokenizer):
        return loaded
    if not Path(tokenizer.path).expanduser().exists():
        return loaded
    return with_vocabulary(loaded, tokenizer_from_settings(tokenizer, None, recipe.seed).vocab_size)


def source_tokens(
    shards: ShardSet, recipe: Recipe, examples: ExampleReaders | None = None
) -> MeasuredTokens:
    """Return the training tokens of each source and of other data that the phases read.

    Other data are selected parts of sources, sources whose documents are transformed, and
    ``examples`` (pairs, messages), by default those with existing files.
    """
    names = shards.sources("train")
    if examples is None:
        examples = open_examples(recipe, shards, where_at_hand=True)
    parts: dict[str, int] = {}
    for phase in recipe.phases:
        for name, select in phase.selections.items():
            if name in names and (label := select.label(name)) not in parts:
                parts[label] = select_documents(shards.read("train", name), select, name).tokens
        for name, how in phase.infilled_documents.items():
            of = InfilledSource("train", name, phase.selections.get(name), how, recipe.seed)
            if name in names and (label := how.label(of.part)) not in parts:
                parts[label] = InfilledStream(of, shards).tokens
    sizes = {name: shards.tokens("train", name) for name in names}
    begin_tokens = 0 if shards.begin_of_sequence_id is None else 1
    return MeasuredTokens(sizes, parts, pass_tokens(recipe, examples), begin_tokens)


def open_training_data(
    recipe: Recipe, timeline: Timeline, shards: ShardSet, examples: ExampleReaders | None = None
) -> TrainingData:
    """Return the reader of all phases' sequences; ``examples`` are readers that are open."""
    examples = open_examples(recipe, shards) if examples is None else examples
    mixtures = resolve_mixtures(recipe, timeline, source_tokens(shards, recipe, examples))
    phases = [
        PhaseData(
            name=phase.name,
            probabilities=dict[str, Fraction](mixture.probabilities),
            context_length=phase.context_length,
            sequences=phase.sequences,
            documents=settings.documents,
            selections=settings.selections,
            infillings=settings.infillings,
        )
        for phase, settings, mixture in zip(timeline.phases, recipe.phases, mixtures, strict=True)
        if phase.index not in examples
    ]
    reader = PhaseReader(SequenceReader(shards, phases, recipe.seed), examples)
    return TrainingData(shards, reader, mixtures, examples)


SEQUENCES_AT_ONCE = 256


def seen_tokens(recipe: Recipe, shards: ShardSet) -> Iterator[np.ndarray]:
    """Yield the text of each sequence of the phases that read shards, as a flat array with its
    labels."""
    plan = plan_recipe(recipe, source_tokens(shards, recipe))
    reader = open_training_data(recipe, plan.timeline, shards).reader
    skip = 0 if shards.begin_of_sequence_id is None else 1
    of_shards = [phase for phase in plan.timeline.phases if not recipe.phases[phase.index].examples]
    for phase in of_shards:
        for first in range(0, phase.sequences, SEQUENCES_AT_ONCE):
            stop = min(first + SEQUENCES_AT_ONCE, phase.sequences)
            yield from reader.read(phase.index, first, stop).tokens[:, skip:]
