"""The manifest of a folder on the data's way: what made it, from what, and each file's digest.

Each arrow of the way (documents, shards, a run, a release) writes ``manifest.json``. A reader
verifies it before it uses the folder.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from feldspar.core.errors import RunError, UserError
from feldspar.core.files import digest_of, sha256_of_file, write_atomically

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class FileRecord:
    """Size and SHA-256 of one file of a folder."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder is and where it comes from.

    ``kind`` names the arrow (``documents``, ``shards``, ``tokenizer``, ``release``);
    ``configuration`` is the digest of the settings that shaped the content; ``parents`` maps each
    input folder to the digest of its manifest; ``counts`` holds documents, bytes and tokens.
    """

    kind: str
    configuration: str
    version: str
    command: str = ""
    parents: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    format_version: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """The content's identity: independent of command, package version and parents' places."""
        content = {name: record.sha256 for name, record in sorted(self.files.items())}
        return digest_of(self.kind, self.configuration, json.dumps(content))


def records_of(folder: Path) -> dict[str, FileRecord]:
    """Size and digest of every file below ``folder``, except its manifest, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, sha256_of_file(path))
        for path in paths
        if path.name != MANIFEST_NAME
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into ``folder``."""
    write_atomically(folder / MANIFEST_NAME, manifest_text(manifest))


def manifest_text(manifest: Manifest) -> str:
    """What ``manifest.json`` holds."""
    text = json.dumps(asdict(manifest) | {"digest": manifest.digest}, indent=2, sort_keys=True)
    return text + "\n"


def read_manifest(folder: Path, kind: str) -> Manifest:
    """The manifest of ``folder``.

    Raises UserError when there is none or when the folder is of another kind.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise UserError(f"{folder} holds no {MANIFEST_NAME}: it is not a finished {kind} folder")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        digest = data.pop("digest", None)
        data["files"] = {name: FileRecord(**record) for name, record in data["files"].items()}
        manifest = Manifest(**data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}", do="build the folder again") from error
    if manifest.format_version != FORMAT_VERSION:
        raise UserError(
            f"{path} was written by another version of feldspar",
            found=f"format {manifest.format_version}",
            allowed=f"format {FORMAT_VERSION}",
        )
    if digest != manifest.digest:
        raise RunError(
            f"{path} was altered: it does not match its own digest", do="build the folder again"
        )
    if manifest.kind != kind:
        raise UserError(f"{folder} holds {manifest.kind}, not {kind}")
    return manifest


def verify_files(folder: Path, manifest: Manifest, contents: bool = True) -> list[str]:
    """Every file of the manifest that is missing or differs, as lines; empty when whole.

    ``contents=False`` compares sizes only.
    """
    problems = []
    for name, record in sorted(manifest.files.items()):
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif path.stat().st_size != record.bytes:
            problems.append(f"{name}: {path.stat().st_size} bytes, expected {record.bytes}")
        elif contents and sha256_of_file(path) != record.sha256:
            problems.append(f"{name}: content differs from its checksum")
    return problems
