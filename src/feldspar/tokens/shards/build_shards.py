"""Build a folder of shards from documents: tokenizer, tokens and manifest."""

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feldspar.core.artifact import (
    Wanted,
    find_artifact,
    finish_artifact,
    open_artifact,
    require_replaceable,
)
from feldspar.core.errors import FeldsparError
from feldspar.core.execution import available_cores, executor
from feldspar.core.files import TEMPORARY_MARK, new_folder
from feldspar.core.manifest import Manifest
from feldspar.core.progress import progress, say
from feldspar.core.streams import stream_seed
from feldspar.recipe.sections.tokens import ShardSettings, TokenizerSettings
from feldspar.tokens.shards.shard_shape import KIND, ShardShape
from feldspar.tokens.shards.writer import write_source
from feldspar.tokens.tokenizer.document_encoding import SourceCounts, encode_unit, units_of
from feldspar.tokens.tokenizer.infilling import Infiller
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.tokens.tokenizer.tokenizer_sources import tokenizer_from_settings

if TYPE_CHECKING:
    from feldspar.corpus.document import Document

TOKENIZER_FOLDER = "tokenizer"
SPLITS = ("train", "validation", "test")
SERIAL_BYTES = 4_000_000
"""With less compressed text than this, starting processes costs more time than it saves."""


@dataclass(frozen=True)
class ShardReport:
    """Contents of a folder of shards, by split and source."""

    path: Path
    digest: str
    up_to_date: bool
    """True if the folder existed already and was kept."""
    vocab_size: int
    end_of_document: str
    dtype: str
    splits: dict[str, dict[str, SourceCounts]]

    def as_dict(self) -> dict[str, Any]:
        """Return the report for ``--json``."""
        return asdict(self) | {
            "path": str(self.path),
            "splits": {
                split: {name: counts_with_ratios(counts) for name, counts in sources.items()}
                for split, sources in self.splits.items()
            },
        }

    @classmethod
    def of(cls, path: Path, manifest: Manifest, up_to_date: bool) -> "ShardReport":
        """Return the report of a folder with this manifest."""
        counts = manifest.counts
        return cls(
            path=path,
            digest=manifest.digest,
            up_to_date=up_to_date,
            vocab_size=counts["vocab_size"],
            end_of_document=counts["end_of_document"],
            dtype=counts["dtype"],
            splits=splits_of(manifest),
        )


def counts_with_ratios(counts: SourceCounts) -> dict[str, Any]:
    """Return counts, tokens per word and bytes per token."""
    ratios = {"tokens_per_word": counts.tokens_per_word, "bytes_per_token": counts.bytes_per_token}
    return asdict(counts) | ratios


def splits_of(manifest: Manifest) -> dict[str, dict[str, SourceCounts]]:
    """Return the counts by split and source in a shard manifest."""
    ratios = {"tokens_per_word", "bytes_per_token"}
    return {
        split: {
            name: SourceCounts(**{key: n for key, n in counts.items() if key not in ratios})
            for name, counts in sources.items()
        }
        for split, sources in manifest.counts["splits"].items()
    }


def build_shards(
    documents: Path,
    tokenizer_settings: TokenizerSettings,
    shard_settings: ShardSettings,
    *,
    seed: int,
    workers: int | None = None,
    command: str = "",
    overwrite: bool = False,
    infilling_scopes: Collection[str] = (),
) -> ShardReport:
    """Encode all ``documents`` into the folder ``shard_settings.path``.

    A finished folder of the same configuration and documents is kept. The bytes depend only on
    documents, settings and seed, not on ``workers`` (default: all cores). Raises UserError if the
    folder holds something else and ``overwrite`` is off, or if the tokenizer does not support
    fill-in-the-middle of ``infilling_scopes``.
    """
    path = shard_settings.path
    parent = open_artifact(documents, "documents").manifest.digest
    shape = ShardShape.of(tokenizer_settings, shard_settings, seed)
    wanted = shape.wanted(parent)
    if (finished := _kept(path, wanted, overwrite)) is not None:
        say(f"{path} is up to date")
        return ShardReport.of(path, finished, up_to_date=True)
    for left in path.parent.glob(f"{path.name}{TEMPORARY_MARK}*"):
        shutil.rmtree(left, ignore_errors=True)
    workers = available_cores() if workers is None else workers
    with new_folder(path, overwrite=True) as folder:
        tokenizer = shape.given or tokenizer_from_settings(tokenizer_settings, documents, seed)
        if infilling_scopes:
            Infiller(
                tokenizer, pads="context" in infilling_scopes
            )  # refuses, before anything is encoded
        tokenizer.save(folder / TOKENIZER_FOLDER)
        splits = _encode_all(documents, folder, tokenizer, shard_settings, seed, workers)
        manifest = finish_artifact(
            folder,
            wanted,
            command=command,
            counts={
                "tokenizer_digest": tokenizer.digest,
                "vocab_size": tokenizer.vocab_size,
                "end_of_document": tokenizer.end_of_document,
                "end_of_document_id": tokenizer.end_of_document_id,
                **({"begin_of_sequence_id": begin[0]} if (begin := tokenizer.begin_ids) else {}),
                "dtype": tokenizer.dtype.str,
                "splits": {
                    split: {name: counts_with_ratios(c) for name, c in sources.items()}
                    for split, sources in splits.items()
                },
            },
        )
    return ShardReport.of(path, manifest, up_to_date=False)


def _kept(path: Path, wanted: Wanted, overwrite: bool) -> Manifest | None:
    """Return the manifest of a whole folder that needs no building; None when there is work to do.

    Raises UserError when the folder holds something else, RunError when it is damaged; with
    ``overwrite`` only for what may not be replaced.
    """
    try:
        found = find_artifact(path, wanted)
        if found is None:
            return None
        found.verify()
    except FeldsparError:
        if not overwrite:
            raise
        require_replaceable(path, KIND)
        return None
    return found.manifest


def _encode_all(
    documents: Path,
    folder: Path,
    tokenizer: TextTokenizer,
    settings: ShardSettings,
    seed: int,
    workers: int,
) -> dict[str, dict[str, SourceCounts]]:
    compressed = sum(file.stat().st_size for file in documents.rglob("*.parquet"))
    workers = 1 if compressed < SERIAL_BYTES else workers
    make_units = partial(
        units_of,
        tokenizer=folder / TOKENIZER_FOLDER,
        digest=tokenizer.digest,
        order_seed=stream_seed(seed, "tokens.order"),
        in_process=workers > 1,
    )
    splits: dict[str, dict[str, SourceCounts]] = {}
    with executor(workers) as pool, progress("encoding") as advance:
        for split, name, texts in _texts_by_source(documents, advance):
            units = pool.map(encode_unit, make_units(texts))
            counts = write_source(
                folder / split / name, units, tokenizer.dtype, settings.shard_tokens
            )
            if not counts.documents:
                shutil.rmtree(folder / split / name)
            if counts.documents or counts.empty_documents:
                splits.setdefault(split, {})[name] = counts
    return splits


def _texts_by_source(
    documents: Path, advance: Callable[[float], None]
) -> Iterator[tuple[str, str, Iterator[str]]]:
    from feldspar.corpus import store

    names = store.sources(documents)
    for split in SPLITS:
        for name in names:
            if (documents / split / name).is_dir():
                yield split, name, _texts(store.documents(documents, split, name), advance)


def _texts(found: "Iterable[Document]", advance: Callable[[float], None]) -> Iterator[str]:
    for document in found:
        yield document.text
        advance(1)
