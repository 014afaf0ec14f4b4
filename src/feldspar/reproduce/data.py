"""The shards of an experiment: there already, or built from what is at hand."""

import shlex

from feldspar.core.errors import UserError
from feldspar.core.execution import available_cores
from feldspar.core.progress import say
from feldspar.corpus.readers.archives import cached_archive
from feldspar.corpus.settings import CorpusSettings, InstalledReader, PackageReader
from feldspar.recipe.load import load_recipe
from feldspar.reproduce.paper import Data

CORPUS_OVERRIDES = ("corpus.", "choose.")
"""What overrides of a corpus begin with; the others concern its shards."""


def prepare(data: Data) -> None:
    """Build the shards of ``data`` where they are missing.

    Documents that have to be fetched are not: then UserError names the commands that do.
    """
    recipe = load_recipe(data.recipe, list(data.overrides)).recipe
    corpus, tokenizer, shards = recipe.corpus, recipe.tokenizer, recipe.shards
    assert corpus is not None and tokenizer is not None and shards is not None, "a shipped recipe"
    if shards.path.is_dir():
        return
    if not corpus.path.is_dir():
        if not is_at_hand(corpus):
            raise UserError(
                f"neither the shards {shards.path} nor the documents {corpus.path} are there",
                do=_documents_advice(data),
            )
        _build_documents(data, corpus)
    from feldspar.tokens.build import build_shards

    say(f"encoding {corpus.path} into {shards.path}")
    build_shards(
        corpus.path,
        tokenizer,
        shards,
        seed=recipe.seed,
        command=build_command(data),
        workers=available_cores(),
    )


def is_at_hand(corpus: CorpusSettings) -> bool:
    """Whether every source is what this interpreter holds, or was downloaded before."""
    return all(
        isinstance(source.reader, InstalledReader)
        or (
            isinstance(source.reader, PackageReader)
            and all(cached_archive(archive) for archive in source.reader.archives)
        )
        for source in corpus.sources.values()
    )


def build_command(data: Data) -> str:
    """The command that makes the shards from the documents."""
    return " ".join(["feldspar tokens build", data.recipe, *map(shlex.quote, data.overrides)])


def _documents_command(data: Data) -> str:
    of_the_corpus = [item for item in data.overrides if item.startswith(CORPUS_OVERRIDES)]
    return " ".join(["feldspar corpus build", data.recipe, *map(shlex.quote, of_the_corpus)])


def _documents_advice(data: Data) -> str:
    command = _documents_command(data)
    if data.before:
        command = f"{data.before} && {command}"
    return f"feldspar quickstart, or only: {command}" if data.recipe == "quickstart" else command


def _build_documents(data: Data, corpus: CorpusSettings) -> None:
    from feldspar.corpus.build import build_corpus

    say(f"reading {', '.join(corpus.sources)} into {corpus.path}")
    build_corpus(
        corpus,
        corpus.path,
        command=_documents_command(data),
        workers=available_cores(),
        offline=True,
    )
