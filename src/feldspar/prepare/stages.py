"""List the stages between raw text and a run that can begin, each with its folder and state.

Nothing is built or fetched here, and no torch is loaded.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from feldspar.core.artifact import OtherArtifactError, Wanted, find_artifact, open_artifact
from feldspar.core.errors import FeldsparError, UserError
from feldspar.corpus.ontology import wanted_ontology
from feldspar.corpus.store import KIND as DOCUMENTS
from feldspar.corpus.store import wanted_documents
from feldspar.prepare.bases import holds_model
from feldspar.recipe.load import LoadedDataRecipe, LoadedRecipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.corpus import CorpusSettings
from feldspar.recipe.sections.readers import HuggingFaceReader
from feldspar.recipe.sections.start_from import (
    StartFrom,
    StartFromHuggingFace,
    StartFromRun,
    StartFromScratch,
)
from feldspar.recipe.sections.tokens import ExtendTokenizer, ShardSettings, TrainBpe
from feldspar.runtime.run_folder import RunFolder
from feldspar.tokens.shards.shard_shape import KIND as SHARDS
from feldspar.tokens.shards.shard_shape import ShardShape

AnyLoaded = LoadedRecipe | LoadedDataRecipe


class State(StrEnum):
    """The state of a stage."""

    READY = "ready"
    TO_BUILD = "will be built"
    NOT_NEEDED = "not needed"
    MISSING = "missing"
    REFUSED = "refused"


@dataclass(frozen=True)
class Stage:
    """One input that a recipe needs before it trains."""

    name: str
    path: Path | None
    state: State
    note: str = ""
    """The source of the stage, or the reason why it is missing or refused."""
    found: str | None = None
    """The settings that differ, if the stage was built with others."""
    do: str | None = None
    """The command that makes the stage, or what the user has to do."""
    error: FeldsparError | None = None
    """The error of the reader that refused the stage."""

    def lines(self) -> list[str]:
        """Return the stage for people. The user's next action stands on a line of its own."""
        place = [] if self.path is None else [shown_path(self.path)]
        details = [self.note] if self.found is None else [self.note, self.found]
        text = ": ".join(part for part in [*place, *details] if part)
        lines = [f"{self.name:12}{self.state.value:15}{text}"]
        if self.do is not None and self.state in (State.MISSING, State.REFUSED):
            lines.append(f"{'':12}do: {self.do}")
        return lines

    def as_dict(self) -> dict[str, str | None]:
        """Return the stage for machines, as plain values."""
        return {
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            "state": self.state.value,
            "note": self.note,
            "found": self.found,
            "do": self.do,
        }


def stages_of(loaded: AnyLoaded) -> list[Stage]:
    """List what the recipe needs, in the order in which it is made."""
    corpus = loaded.recipe.corpus
    ontology = [] if corpus is None else list(_ontology(loaded, corpus))
    starts = list(_starts(loaded.recipe)) if isinstance(loaded.recipe, Recipe) else []
    imported = [stage.path for stage in starts if stage.path and stage.state is State.TO_BUILD]
    written = [stage.path for stage in ontology if stage.path and stage.state is State.TO_BUILD]
    documents = None if corpus is None else _documents(loaded, corpus, written)
    shards = _shards(loaded, documents)
    if documents is not None and shards.state is State.READY and documents.state in _ABSENT:
        note = "the shards hold their tokens"
        documents = Stage("documents", documents.path, State.NOT_NEEDED, note)
    tokenizer = _tokenizer(loaded, shards, imported)
    if tokenizer is not None and tokenizer.state is State.MISSING:
        note = f"shards.path: {shards.path} does not exist, and is made with the tokenizer"
        shards = replace(shards, state=State.MISSING, note=note)
    data = [stage for stage in (documents, tokenizer, shards) if stage]
    examples = _examples(loaded.recipe, written) if isinstance(loaded.recipe, Recipe) else ()
    return [*starts, *ontology, *data, *examples]


def shown_path(path: Path) -> str:
    """Return a path as the user would write it: relative if it lies below the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


STARTS = ("start_from", "adapt.embeddings.donor")
"""Settings whose folders another run or a download makes."""
_ABSENT = (State.TO_BUILD, State.MISSING)


def _ontology(loaded: AnyLoaded, corpus: CorpusSettings) -> Iterator[Stage]:
    settings = corpus.ontology
    if settings is None:
        return
    key = "corpus.ontology.path"
    try:
        found = find_artifact(settings.path, wanted_ontology(settings, key))
    except FeldsparError as error:
        root = "" if settings.root is None else f" --root {settings.root}"
        ontology = f"{settings.file or 'hpo'}{root} --least {settings.least}"
        command = f"feldspar corpus ontology {ontology} --out {settings.path}"
        yield _refused("ontology", settings.path, error, key, command)
        return
    if found is not None:
        yield Stage("ontology", settings.path, State.READY)
    elif settings.file is not None and not settings.file.is_file():
        note = f"corpus.ontology.file: {settings.file} does not exist"
        yield Stage("ontology", settings.path, State.MISSING, note, do="put the file there")
    else:
        source = settings.file or "the Human Phenotype Ontology of the package index"
        command = f"feldspar corpus build {loaded.arguments}"
        yield Stage("ontology", settings.path, State.TO_BUILD, f"from {source}", do=command)


def _documents(loaded: AnyLoaded, corpus: CorpusSettings, written: list[Path]) -> Stage:
    command = f"feldspar corpus build {loaded.arguments}"
    try:
        found = find_artifact(corpus.path, wanted_documents(corpus, "corpus.path"))
    except FeldsparError as error:
        return _refused("documents", corpus.path, error, "corpus.path", command)
    if found is None:
        return _unbuilt_documents(corpus, command, written)
    return Stage("documents", corpus.path, State.READY)


def _unbuilt_documents(corpus: CorpusSettings, command: str, written: list[Path]) -> Stage:
    for name, source in corpus.sources.items():
        path = source.path
        if path is None or path.exists() or any(path.is_relative_to(folder) for folder in written):
            continue
        named = isinstance(source.reader, HuggingFaceReader) and source.reader.name is not None
        if not named:
            note = f"corpus.sources.{name}.path: {path} does not exist"
            do = f"put the text of {name} there, or set corpus.sources.{name}.path"
            return Stage("documents", corpus.path, State.MISSING, note, do=do)
    note = f"from {', '.join(corpus.sources)}"
    return Stage("documents", corpus.path, State.TO_BUILD, note, do=command)


def _shards(loaded: AnyLoaded, documents: Stage | None) -> Stage:
    recipe = loaded.recipe
    if recipe.shards is None:
        do = "add the section shards: {path: FOLDER}"
        return Stage("shards", None, State.MISSING, "shards: the recipe has no such section", do=do)
    path = recipe.shards.path
    command = f"feldspar tokens build {loaded.arguments}"
    try:
        if _shards_are_ready(loaded, recipe.shards, documents):
            return Stage("shards", path, State.READY)
    except FeldsparError as error:
        return _refused("shards", path, error, "shards.path", command)
    if recipe.corpus is None or recipe.tokenizer is None or documents is None:
        absent = "corpus" if recipe.corpus is None else "tokenizer"
        note = f"shards.path: {path} does not exist, and the recipe has no section {absent}"
        do = f"add the section {absent}, or set shards.path to a folder of shards"
        return Stage("shards", path, State.MISSING, note, do=do)
    if documents.state in (State.MISSING, State.REFUSED):
        note = f"shards.path: {path} does not exist, and is made from the documents"
        return Stage("shards", path, State.MISSING, note, do=command)
    note = f"from {shown_path(recipe.corpus.path)}"
    return Stage("shards", path, State.TO_BUILD, note, do=command)


def _shards_are_ready(loaded: AnyLoaded, shards: ShardSettings, documents: Stage | None) -> bool:
    """Tell whether the recipe's shards are there; False where they are to be made.

    Raises UserError where another recipe built the shards, as far as this recipe says how.
    """
    recipe = loaded.recipe
    found = find_artifact(shards.path, Wanted(SHARDS, key="shards.path"))
    if found is None or recipe.corpus is None or recipe.tokenizer is None:
        return found is not None
    if documents is not None and documents.state is State.REFUSED:
        raise OtherArtifactError(
            "shards.path: its documents were built otherwise than the recipe says"
        )
    digest = None
    if documents is not None and documents.state is State.READY:
        digest = open_artifact(recipe.corpus.path, DOCUMENTS).manifest.digest
    try:
        shape = ShardShape.of(recipe.tokenizer, shards, recipe.seed)
    except UserError:
        return True  # the shards hold a copy of the tokenizer
    shape.wanted(digest, any_seed_of=found.manifest).require_same(shards.path, found.manifest)
    return True


def _tokenizer(loaded: AnyLoaded, shards: Stage, imported: list[Path]) -> Stage | None:
    """Return the tokenizer, which lies in the folder of the shards.

    It may extend that of a model that will be ``imported``.
    """
    recipe = loaded.recipe
    if shards.path is None or recipe.tokenizer is None or shards.state is State.REFUSED:
        return None
    path = shards.path / "tokenizer"
    if shards.state is State.READY:
        return Stage("tokenizer", path, State.READY)
    if isinstance(recipe.tokenizer, TrainBpe):
        note = f"{recipe.tokenizer.vocab_size:,} tokens, trained on the documents"
        return Stage("tokenizer", path, State.TO_BUILD, note, do=shards.do)
    if isinstance(recipe.tokenizer, ExtendTokenizer) and Path(recipe.tokenizer.base) in imported:
        note = f"extends that of {recipe.tokenizer.base}"
        return Stage("tokenizer", path, State.TO_BUILD, note, do=shards.do)
    try:
        assert recipe.shards is not None, "the shards have a path"
        ShardShape.of(recipe.tokenizer, recipe.shards, recipe.seed)
    except FeldsparError as error:
        return Stage("tokenizer", path, State.MISSING, error.what, error.found, error.do)
    return Stage("tokenizer", path, State.TO_BUILD, "from its files", do=shards.do)


def starts_of(recipe: Recipe) -> tuple[StartFrom, StartFrom | None]:
    """Return the settings that ``STARTS`` names; None without a donor."""
    return recipe.start_from, None if recipe.adapt is None else recipe.adapt.embeddings.donor


def _starts(recipe: Recipe) -> Iterator[Stage]:
    for name, start in zip(STARTS, starts_of(recipe), strict=True):
        if start is None or isinstance(start, StartFromScratch):
            continue
        path = Path(start.path)
        if isinstance(start, StartFromRun):
            yield _parent_run(name, path, start)
        elif isinstance(start, StartFromHuggingFace):
            yield _parent_folder(name, path, start.base)


def _parent_run(name: str, path: Path, start: StartFromRun) -> Stage:
    if RunFolder(path).holds_checkpoint:
        return Stage(name, path, State.READY)
    command = f"feldspar train {start.recipe or 'ITS-RECIPE'} --out {path}"
    return Stage(name, path, State.MISSING, f"{name}: {path} holds no checkpoint", do=command)


def _parent_folder(name: str, path: Path, base: str | None) -> Stage:
    if holds_model(path):
        return Stage(name, path, State.READY)
    if base is not None:
        command = f"feldspar import {base} --out {path}"
        return Stage(name, path, State.TO_BUILD, f"from the package of {base}", do=command)
    do = "put config.json and the safetensors files of the model there"
    return Stage(name, path, State.MISSING, f"{name}: {path} holds no model", do=do)


def _examples(recipe: Recipe, written: list[Path]) -> Iterator[Stage]:
    for index, phase in enumerate(recipe.phases):
        if phase.examples is None:
            continue
        name, path = phase.examples.type, phase.examples.path
        if path.is_file():
            yield Stage(name, path, State.READY)
        elif any(path.is_relative_to(folder) for folder in written):
            yield Stage(name, path, State.TO_BUILD, "from the ontology")
        else:
            note = f"phases.{index}.data.path: {path} does not exist"
            yield Stage(name, path, State.MISSING, note, do=f"put the {name} there as JSON lines")


def _refused(name: str, path: Path, error: FeldsparError, key: str, command: str) -> Stage:
    """Return the stage of a folder that is damaged, or that holds something else."""
    if isinstance(error, OtherArtifactError):
        error.do = f"set another {key}, or replace it: {command} --overwrite"
    return Stage(name, path, State.REFUSED, error.what, error.found, error.do, error)
