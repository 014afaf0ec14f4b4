"""The manifest of a folder: its settings, its inputs, and the size and digest of each file.

Each arrow of the way (documents, shards, a run's checkpoints, a release) writes ``manifest.json``.
Readers open such a folder with ``core.artifact``, which compares files with their digests.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from feldspar.core.differences import difference_line, differences
from feldspar.core.errors import RunError, UserError
from feldspar.core.files import digest_of, sha256_of_file, write_atomically

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 2
"""Since version 2 the checksum covers the whole manifest, counts and parents too."""
DIGEST, CHECKSUM = "digest", "checksum"


@dataclass(frozen=True)
class FileRecord:
    """Size and SHA-256 of one file of a folder."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The kind, origin and files of a folder.

    ``kind`` is the kind of artifact (``documents``, ``shards``, ``tokenizer``, ``checkpoint``,
    ``release``). ``configuration`` is the digest of the settings that shaped the content.
    ``settings`` are these settings, so that a message can show how another recipe differs.
    ``parents`` maps each input folder to the digest of its manifest. ``counts`` holds documents,
    bytes and tokens.
    """

    kind: str
    configuration: str
    version: str
    command: str = ""
    parents: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """The digest of the content, independent of command, package version and parents'
        places.
        """
        content = {name: record.sha256 for name, record in sorted(self.files.items())}
        return digest_of(self.kind, self.configuration, json.dumps(content))


def records_of(folder: Path) -> dict[str, FileRecord]:
    """Return size and digest of every file below ``folder`` but its manifest, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, sha256_of_file(path))
        for path in paths
        if path != folder / MANIFEST_NAME
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into ``folder``."""
    write_atomically(folder / MANIFEST_NAME, manifest_text(manifest))


def manifest_text(manifest: Manifest) -> str:
    """Return the text of ``manifest.json``: the fields, the content's digest, and a checksum."""
    data = asdict(manifest) | {DIGEST: manifest.digest}
    return json.dumps(data | {CHECKSUM: _checksum(data)}, indent=2, sort_keys=True) + "\n"


def read_manifest(folder: Path, *kinds: str) -> Manifest:
    """Read the manifest of ``folder``, which must be of one of ``kinds``; without kinds, of any.

    Raises UserError when there is no manifest, when the folder is of another kind, or when another
    version of feldspar wrote it; RunError when the manifest was altered.
    """
    path = folder / MANIFEST_NAME
    wanted = " or ".join(kinds) or "feldspar"
    if not path.is_file():
        raise UserError(f"{folder} holds no {MANIFEST_NAME}: it is not a finished {wanted} folder")
    data = _mapping(path)
    kind = data.get("kind")
    if isinstance(kind, str) and kinds and kind not in kinds:
        raise UserError(f"{folder} holds {kind}, not {wanted}")
    found = data.get("format_version")
    if isinstance(found, int) and found != FORMAT_VERSION:
        raise UserError(
            f"{path} was written by another version of feldspar",
            found=f"format {found}",
            allowed=f"format {FORMAT_VERSION}",
            do="make the folder again with this version, or use the version that wrote it",
        )
    if data.pop(CHECKSUM, None) != _checksum(data):
        raise RunError(
            f"{path} was altered: it does not match its own checksum",
            do="restore it from a copy, or build the folder again",
        )
    try:
        data.pop(DIGEST)
        data["files"] = {name: FileRecord(**record) for name, record in data["files"].items()}
        manifest = Manifest(**data)
    except (TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from error
    for name in manifest.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise _damaged(path, f"it names {name}, which lies outside its folder")
    return manifest


def kind_of(folder: Path) -> str | None:
    """Return the kind that the manifest of ``folder`` names, unverified; None if unreadable."""
    try:
        kind = _mapping(folder / MANIFEST_NAME).get("kind")
    except (OSError, RunError):
        return None
    return kind if isinstance(kind, str) else None


def is_manifest(path: Path) -> bool:
    """Tell whether ``path`` is a manifest of feldspar, even if damaged. Other tools use the name
    too.
    """
    if not path.is_file():
        return False
    try:
        data = _mapping(path)
    except RunError:
        return True  # most likely a damaged manifest; its reader reports that
    return len(data.keys() & {each.name for each in fields(Manifest)}) >= 3


def changes_since(manifest: Manifest, settings: dict[str, Any]) -> str | None:
    """List how ``settings`` differ from the manifest's. Older manifests keep no settings."""
    if not manifest.settings or not settings:
        return None
    plain = json.loads(json.dumps(settings))
    found = differences(manifest.settings, plain)
    return "; ".join(map(difference_line, found)) or None


def verify_files(folder: Path, manifest: Manifest, contents: bool = True) -> list[str]:
    """Compare ``folder`` with its manifest; return a line for each fault.

    A fault is a file that is missing, differs or is not listed. ``contents=False`` compares sizes
    only.
    """
    problems = []
    for name, record in sorted(manifest.files.items()):
        problem = size_problem(folder / name, record)
        if problem is None and contents:
            problem = content_problem(folder / name, record)
        if problem is not None:
            problems.append(f"{name}: {problem}")
    return problems + [f"{name}: {NOT_LISTED}" for name in unlisted_files(folder, manifest)]


NOT_LISTED = f"not listed in {MANIFEST_NAME}"


def size_problem(path: Path, record: FileRecord) -> str | None:
    """Describe how a file's presence or size differs from its record; None when it does not."""
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    return None if size == record.bytes else f"{size} bytes, expected {record.bytes}"


def content_problem(path: Path, record: FileRecord) -> str | None:
    """Say that a file's content differs from its record; None when it does not."""
    if sha256_of_file(path) == record.sha256:
        return None
    return "content differs from its checksum"


def unlisted_files(folder: Path, manifest: Manifest) -> list[str]:
    """List files below ``folder`` that the manifest does not list; hidden files do not count."""
    present = set(_visible_files(folder))
    return sorted(present - set(manifest.files) - {MANIFEST_NAME})


def _visible_files(folder: Path) -> Iterator[str]:
    for directory, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield (Path(directory) / name).relative_to(folder).as_posix()


def _mapping(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(data, dict):
        raise _damaged(path, "it holds no JSON mapping")
    return data


def _checksum(data: dict[str, Any]) -> str:
    return digest_of(json.dumps(data, sort_keys=True))


def _damaged(path: Path, reason: object) -> RunError:
    return RunError(
        f"{path} is damaged: {reason}",
        do="restore it from a copy, or build the folder again",
    )
