"""Read the code that is installed: the standard library, or the packages beside feldspar.

Nothing is downloaded, so it works offline and on test machines.
"""

import platform
import sysconfig
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata
from importlib.metadata import PackageMetadata
from pathlib import Path

from feldspar.corpus.readers.listing import files_below
from feldspar.corpus.readers.pieces import Piece, file_piece
from feldspar.corpus.readers.text import whole_file
from feldspar.recipe.sections.corpus import SourceSettings
from feldspar.recipe.sections.readers import InstalledReader

OWN_NAME = "feldspar"
STANDARD_LIBRARY_LICENCE = "PSF-2.0"
NAME_CHARACTERS = 80
"""A longer licence is a text, not a name."""


def installed_pieces(source: str, settings: SourceSettings) -> Iterator[Piece]:
    """Yield the files of the standard library or of installed packages, without tests."""
    reader = settings.reader
    assert isinstance(reader, InstalledReader)
    if reader.what == "standard_library":
        version = f"python-{platform.python_version()}"
        licence = settings.licence or STANDARD_LIBRARY_LICENCE
        for name, path in standard_library_files(reader.suffixes):
            yield _piece(source, name, version, path, licence)
        return
    for distribution in _distributions(reader.packages):
        licence = settings.licence or licence_of(distribution.metadata)
        version = f"{distribution.metadata['Name']}-{distribution.version}"
        for name, path in _package_files(distribution, reader.suffixes):
            yield _piece(source, name, version, path, licence)


def _piece(source: str, name: str, version: str, path: Path, licence: str) -> Piece:
    # Another machine's interpreter may hold another version under the same path.
    read = partial(whole_file, source, name, f"{version}/{name}", path, licence)
    return file_piece(read, path, here=True)


def standard_library_files(suffixes: Sequence[str]) -> list[tuple[str, Path]]:
    """Yield name and path of the standard library's source files, without tests."""
    return files_below(Path(sysconfig.get_paths()["stdlib"]), suffixes, _skipped)


def _skipped(name: str) -> bool:
    return "/test" in f"/{name}" or "site-packages/" in name or "dist-packages/" in name


def _distributions(wanted: Sequence[str]) -> Iterator[metadata.Distribution]:
    named = {
        distribution.metadata["Name"].lower(): distribution
        for distribution in metadata.distributions()
        if distribution.metadata["Name"]
    }
    for name in sorted(named):
        if name != OWN_NAME and (not wanted or name in wanted):
            yield named[name]


def _package_files(
    distribution: metadata.Distribution, suffixes: Sequence[str]
) -> Iterator[tuple[str, Path]]:
    for file in sorted(distribution.files or ()):
        name = file.as_posix()
        path = Path(str(file.locate()))
        outside = name.startswith(("/", "../"))
        wanted = name.endswith(tuple(suffixes)) and not outside and not _skipped(name)
        if wanted and path.is_file():
            yield name, path


def licence_of(fields: PackageMetadata) -> str:
    """Return the licence that a package's metadata name.

    A short ``License`` says more than the classifiers; a whole licence text is no name.
    """
    for expression in fields.get_all("License-Expression") or ():
        return expression
    lines = "".join(fields.get_all("License") or ()).strip().splitlines()
    named = lines[0].strip()[:NAME_CHARACTERS] if lines else "unknown"
    if len(lines) == 1 and lines[0].strip() == named and named.upper() != "UNKNOWN":
        return named
    for classifier in fields.get_all("Classifier") or ():
        if classifier.startswith("License ::"):
            return classifier.rsplit("::", 1)[-1].strip()
    return named
