"""Settings of the readers of a corpus's sources."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from feldspar.recipe.base import Count, NameOrMapping, Settings, without_defaults

SOURCE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Pattern of names that are safe as folder names."""


class JsonlReader(Settings):
    """JSON lines: .jsonl, .jsonl.gz or .jsonl.zst; a file, or a folder of them."""

    type: Literal["jsonl"] = "jsonl"


class ParquetReader(Settings):
    """Parquet; a file, or a folder of them."""

    type: Literal["parquet"] = "parquet"


class TextReader(Settings):
    """A folder of text files, one document each unless they are cut."""

    type: Literal["text"] = "text"
    suffixes: tuple[str, ...] = (".txt", ".md", ".rst")
    """File endings that are read."""
    exclude: tuple[str, ...] = ()
    """Globs of relative paths that are left out; a glob without "/" is matched with file names."""
    document_characters: Count | None = None
    """Most characters of a document: longer files are cut, between paragraphs where they can be.
    Each part is held out by itself."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ("exclude", "document_characters"))


class CodeReader(Settings):
    """A tree of source code, one document a file."""

    type: Literal["code"] = "code"
    suffixes: tuple[str, ...] = (".py",)
    """File endings that are read."""
    exclude: tuple[str, ...] = ()
    """Globs of relative paths that are left out; a glob without "/" is matched with file names."""


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
    """Globs of member paths, without the archive's top folder; a glob without "/" is matched with
    file names."""
    exclude: tuple[str, ...] = ()
    """Globs of member paths that are left out."""
    group_aliases: dict[str, str] = {}
    """Groups that belong to another group, such as editions of one work with another spelling."""
    group_suffixes: tuple[str, ...] = ()
    """Endings that are removed from a file's name (before its extension) to form its group, such as
    those of editions of one work."""


class InstalledReader(Settings):
    """Code on this machine: Python's standard library or the installed packages."""

    type: Literal["installed"] = "installed"
    what: Literal["standard_library", "packages"] = "standard_library"
    """Python's own source, or the code of the packages installed beside feldspar."""
    packages: tuple[str, ...] = ()
    """Only these packages, if they are installed; default: all of them."""
    suffixes: tuple[str, ...] = (".py",)
    """File endings that are read."""


class HuggingFaceReader(Settings):
    """A dataset made by ``save_to_disk`` or a copy of a data repository (path), or a dataset on the
    hub (name; needs the package datasets)."""

    type: Literal["huggingface"] = "huggingface"
    name: Annotated[str, Field(min_length=1)] | None = None
    """Name on the hub, instead of a path."""
    configuration: str | None = None
    """Configuration of the dataset (name)."""
    split: Annotated[str, Field(pattern=SOURCE_NAME_PATTERN)] = "train"
    """Split of the dataset."""
    revision: str | None = None
    """Commit, tag or branch on the hub; only a commit fixes the text (name)."""

    @model_validator(mode="after")
    def _name_where_used(self) -> Self:
        for key in ("configuration", "revision"):
            if self.name is None and getattr(self, key) is not None:
                raise ValueError(f"{key}: it works with name only")
        return self


class WarcReader(Settings):
    """Web archives: WET texts, and the pages in WARC responses without their markup."""

    type: Literal["warc"] = "warc"
    main_content: bool = True
    """true: leave out navigation, headers and footers. false: take all visible text."""


class KeyValueReader(Settings):
    """Generated text for models that learn to look back: pairs of a key and a value, many of which
    come again later in their document."""

    type: Literal["key_value"]
    documents: Count
    """The number of documents."""
    pairs: Count
    """Pairs of a document, of two bytes each, counting those that come again."""
    seed: NonNegativeInt = 0
    """Seed of all keys, values and repetitions."""


Reader = Annotated[
    JsonlReader
    | ParquetReader
    | TextReader
    | CodeReader
    | HuggingFaceReader
    | WarcReader
    | PackageReader
    | InstalledReader
    | KeyValueReader,
    Field(discriminator="type"),
    NameOrMapping,
]
