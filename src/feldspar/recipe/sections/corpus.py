"""Documents in, documents out: sources, cleaning, deduplication, split."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from feldspar.recipe.base import Count, NameOrMapping, Settings

SOURCE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A name that is safe as a folder name."""


@dataclass(frozen=True)
class Banding:
    """How many bands of how many values; ``verified``: whether pairs are then checked exactly."""

    bands: int
    rows: int
    verified: bool


PRESETS = {
    "verified": Banding(bands=20, rows=6, verified=True),
    "slimpajama": Banding(bands=9, rows=13, verified=False),
}
"""Bandings of the sketches by name. Documents of similarity J become candidates with probability
1 - (1 - J^rows)^bands."""


class JsonlReader(Settings):
    """JSON lines: .jsonl, .jsonl.gz or .jsonl.zst; a file, or a folder of them."""

    type: Literal["jsonl"] = "jsonl"


class ParquetReader(Settings):
    """Parquet; a file, or a folder of them."""

    type: Literal["parquet"] = "parquet"


class TextReader(Settings):
    """A folder of text files, one document each."""

    type: Literal["text"] = "text"
    suffixes: tuple[str, ...] = (".txt", ".md", ".rst")
    """File endings that are read."""


class CodeReader(Settings):
    """A tree of source code, one document a file."""

    type: Literal["code"] = "code"
    suffixes: tuple[str, ...] = (".py",)
    """File endings that are read."""
    exclude: tuple[str, ...] = ()
    """Globs of relative paths that are left out; one without "/" is a file name."""


class Archive(Settings):
    """One archive: ``name==version`` and the SHA-256 of its source distribution or wheel."""

    requirement: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*$")
    ]
    """Its name and version in the package index."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Digest of the downloaded file."""


class PackageReader(Settings):
    """Pinned archives of the Python package index, checked by SHA-256 and cached."""

    type: Literal["package"] = "package"
    archives: Annotated[tuple[Archive, ...], Field(min_length=1)]
    """The archives, in order: earlier ones survive deduplication."""
    include: Annotated[tuple[str, ...], Field(min_length=1)]
    """Globs of member paths without the archive's top folder; one without "/" is a file name."""
    exclude: tuple[str, ...] = ()
    """Globs of member paths that are left out."""
    group_aliases: dict[str, str] = {}
    """Group name to group name: editions of one work that differ in spelling."""
    group_suffixes: tuple[str, ...] = ()
    """Endings cut off a file's name, before its extension, to form its group: editions of one
    work."""


class InstalledReader(Settings):
    """What this interpreter already holds: its standard library, or the installed packages."""

    type: Literal["installed"] = "installed"
    what: Literal["standard_library", "packages"] = "standard_library"
    """The interpreter's own source, or the code of the packages installed beside feldspar."""
    packages: tuple[str, ...] = ()
    """Only these installed packages, where they are there; default: all of them."""
    suffixes: tuple[str, ...] = (".py",)
    """File endings that are read."""


class HuggingFaceReader(Settings):
    """A dataset that ``save_to_disk`` made or a copy of a data repository (path), or a name on the
    hub (name, which needs the package datasets)."""

    type: Literal["huggingface"] = "huggingface"
    name: Annotated[str, Field(min_length=1)] | None = None
    """Name on the hub, instead of a path."""
    configuration: str | None = None
    """Which of the dataset's configurations (name)."""
    split: Annotated[str, Field(pattern=SOURCE_NAME_PATTERN)] = "train"
    """Which of its splits."""
    revision: str | None = None
    """Commit, tag or branch on the hub: a commit pins the text (name)."""

    @model_validator(mode="after")
    def _name_where_used(self) -> Self:
        for key in ("configuration", "revision"):
            if self.name is None and getattr(self, key) is not None:
                raise ValueError(f"{key}: means something with name only")
        return self


class WarcReader(Settings):
    """Web archives: WET texts, and the pages in WARC responses without their markup."""

    type: Literal["warc"] = "warc"
    main_content: bool = True
    """Pages without navigation, headers and footers; false: all visible text."""


Reader = Annotated[
    JsonlReader
    | ParquetReader
    | TextReader
    | CodeReader
    | HuggingFaceReader
    | WarcReader
    | PackageReader
    | InstalledReader,
    Field(discriminator="type"),
    NameOrMapping,
]


class Transliteration(Settings):
    """Characters replaced one by one."""

    from_: Annotated[str, Field(min_length=1, alias="from")]
    """The characters that are replaced."""
    to: str
    """What stands in place of each of them, in the same order."""

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.from_) != len(self.to):
            raise ValueError(
                f"to: {len(self.to)} characters cannot replace {len(self.from_)}, one for each"
            )
        if len(set(self.from_)) < len(self.from_):
            raise ValueError("from: a character stands in it twice")
        return self


SourceName = Annotated[str, Field(pattern=SOURCE_NAME_PATTERN)]
"""A source's name becomes a folder's name, hence no path in it."""


class SourceSettings(Settings):
    """One source of documents."""

    reader: Reader
    """How its documents are read."""
    path: Path | None = None
    """File or folder (jsonl, parquet, text, code, huggingface, warc)."""
    text_field: str = "text"
    """Field or column that holds the text; with dots inside nested ones: meta.text (jsonl, parquet,
    huggingface)."""
    id_field: str = "id"
    """Field or column that names a document, where there is one (jsonl, parquet, huggingface)."""
    group_field: str | None = None
    """Field or column that names what must not be split apart (jsonl, parquet, huggingface); null:
    the id."""
    only: dict[str, str] = {}
    """Fields and values: only records that have them are read, where files mix sources (jsonl,
    parquet, huggingface)."""
    transliterate: Transliteration | None = None
    """Replace characters of its text: a language of another script, or a made-up one."""
    licence: str | None = None
    """Licence of the text, carried into the manifest and the model card."""
    tokens: Count | None = None
    """Declared size for dry runs without the data; checked when the data are there."""

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        named = isinstance(self.reader, HuggingFaceReader) and self.reader.name is not None
        needs_path = not named and not isinstance(self.reader, PackageReader | InstalledReader)
        if needs_path and self.path is None:
            raise ValueError(f"path: a {self.reader.type} reader needs the path of its files")
        if not needs_path and self.path is not None:
            with_name = " beside a name" if named else ""
            raise ValueError(f"path: a {self.reader.type} reader takes no path{with_name}")
        records = isinstance(self.reader, JsonlReader | ParquetReader | HuggingFaceReader)
        if self.only and not records:
            raise ValueError(f"only: a {self.reader.type} reader has no fields")
        return self


class ShortFilter(Settings):
    """Remove documents of few cleaned characters."""

    type: Literal["short"] = "short"
    characters: NonNegativeInt = 200
    """Documents with fewer cleaned characters are removed; 0 keeps all."""


class MaxMeanLineLength(Settings):
    """Remove documents whose lines are long on average: minified or generated code, and data."""

    type: Literal["max_mean_line_length"] = "max_mean_line_length"
    characters: Count = 100
    """Documents with more characters a line on average are removed."""


Filter = Annotated[ShortFilter | MaxMeanLineLength, Field(discriminator="type"), NameOrMapping]


class CleanSettings(Settings):
    """Normalisation and the filter of short documents (SlimPajama's)."""

    normalise: Literal["nfc", "ftfy", "none"] = "nfc"
    """Unicode NFC; or ftfy's repairs and NFC, as SlimPajama; or the text as it is."""
    short: NonNegativeInt = 200
    """Documents with fewer cleaned characters are dropped by the filter short, which comes first; 0
    keeps all."""


class HighestValue(Settings):
    """The document of a cluster with the highest value of a field survives."""

    field: Annotated[str, Field(min_length=1)]
    """Field or column that holds a number (jsonl, parquet); documents without it come last."""


class DeduplicateSettings(Settings):
    """Exact and near-duplicate removal (MinHash over character 13-grams)."""

    preset: Literal["verified", "slimpajama"] = "verified"
    """verified: 20 bands of 6, every pair checked; slimpajama: 9 bands of 13, unchecked."""
    verify: bool | None = None
    """Whether candidate pairs are checked by their exact similarity; null: as the preset does."""
    scope: Literal["global", "local"] = "global"
    """Across all sources, or within each source only."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Jaccard similarity from which two documents count as duplicates."""
    keep: Literal["first", "longest", "source_priority"] | HighestValue = "first"
    """Which document of a cluster survives: a name, or ``{field: NAME}`` for the highest value."""
    cluster: Literal["components", "representative"] = "components"
    """components: one survivor for all that pairs connect; representative: a document is dropped
    only when it is itself similar to its survivor."""
    priority: tuple[str, ...] = ()
    """Sources in order of preference (keep: source_priority)."""
    memory: Annotated[str, Field(pattern=r"^[1-9][0-9]*(MB|GB|TB)$")] = "2GB"
    """Memory that one process may hold beside the interpreter and its libraries (about 180 MB, with
    numba 260): 500MB, 2GB; more spills to disk. It does not change the result."""

    @model_validator(mode="after")
    def _priority_where_used(self) -> Self:
        if (self.keep == "source_priority") != bool(self.priority):
            raise ValueError("priority: needed with keep: source_priority, and only there")
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
        """The budget in bytes."""
        return int(self.memory[:-2]) * 1000 ** (2 + ("MB", "GB", "TB").index(self.memory[-2:]))

    @property
    def partition_rows(self) -> int:
        """Rows that a unit sorts in memory, at about 64 bytes each: a sixteenth of the budget.

        More than 64 MB would not make it faster.
        """
        return min(self.memory_bytes // 16 // 64, 1 << 20)

    @property
    def banding(self) -> Banding:
        """The preset's bands, their pairs checked or not."""
        preset = PRESETS[self.preset]
        return preset if self.verify is None else replace(preset, verified=self.verify)


class EvaluationSet(Settings):
    """An evaluation set as files."""

    path: Path
    """JSON lines, Parquet or text; a file, or a folder of them. A text file is one item."""
    fields: tuple[str, ...] = ()
    """Fields or columns that hold an item's text, joined in this order; default: all text."""


class DecontaminateSettings(Settings):
    """Documents that share a run of words with an evaluation set are left out on reading."""

    sets: Annotated[dict[SourceName, EvaluationSet], Field(min_length=1)]
    """The evaluation sets by name."""
    ngram_words: Count = 13
    """Words of a run; items of fewer words are not looked for, and counted."""


class SplitSettings(Settings):
    """Hold out documents of each source that has groups enough; clusters and groups stay whole."""

    validation: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Share of groups for validation during training."""
    test: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Share of groups for the final figures."""
    decontamination: Literal["near", "exact"] | None = "near"
    """Which copies of held-out documents train must not hold: duplicates by ``deduplicate``, also
    sought where that is null; equal text only; null: copies may fall on both sides."""

    @model_validator(mode="after")
    def _whole_thousandths(self) -> Self:
        for name, share in (("validation", self.validation), ("test", self.test)):
            if abs(share * 1000 - round(share * 1000)) > 1e-6:
                raise ValueError(f"{name}: {share} is not a whole number of thousandths")
        return self


class OntologySettings(Settings):
    """An ontology's terms as text, and its labelled definitions as pairs."""

    path: Path
    """Folder of the result: terms.jsonl for a source, train.jsonl and so on for pairs."""
    file: Path | None = None
    """An OBO file; default: the Human Phenotype Ontology, fetched from the package index."""
    root: str | None = None
    """Term whose children are the labels; needed for a file."""
    least: Count = 275
    """Leave out labels of fewer definitions."""

    @model_validator(mode="after")
    def _root_of_a_file(self) -> Self:
        if self.file is not None and self.root is None:
            raise ValueError("root: a file needs the term whose children are the labels")
        return self


class CorpusSettings(Settings):
    """The way from raw text to kept documents."""

    path: Path
    """Folder of the finished documents."""
    sources: Annotated[dict[SourceName, SourceSettings], Field(min_length=1)]
    """The sources by name, in order: earlier ones survive deduplication."""
    ontology: OntologySettings | None = None
    """An ontology that is written into a folder before the sources are read; null: none."""
    clean: CleanSettings = CleanSettings()
    """Normalisation and short filter."""
    filters: tuple[Filter, ...] = ()
    """Further filters, in order; the first that gives a reason removes the document."""
    deduplicate: Annotated[DeduplicateSettings, NameOrMapping] | None = DeduplicateSettings()
    """Duplicate removal; null keeps duplicates."""
    decontaminate: DecontaminateSettings | None = None
    """Evaluation sets that the documents must not overlap; null: none."""
    split: SplitSettings = SplitSettings()
    """Held-out documents."""

    @property
    def all_filters(self) -> tuple[Filter, ...]:
        """The filter of short documents (``clean.short``), then ``filters``."""
        return ShortFilter(characters=self.clean.short), *self.filters
