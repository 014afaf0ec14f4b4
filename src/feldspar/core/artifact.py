"""Artifacts: finished folders, each with a manifest of its files, settings and inputs.

A command that makes one asks ``find_artifact`` first: the folder is absent, finished already, or
holds something else, which is refused. With ``--overwrite`` it asks ``require_replaceable``
instead. It fills a temporary folder (``core.files.new_folder``) and ends with ``finish_artifact``.

Readers use ``open_artifact``, which reads the manifest and looks at names and sizes. A file's
content is compared with its checksum when a reader first asks for it; the result is remembered
outside the folder (``core.artifact_memory``).
"""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feldspar import __version__
from feldspar.core.artifact_memory import ArtifactMemory
from feldspar.core.errors import RunError, UserError
from feldspar.core.execution import available_cores
from feldspar.core.files import require_absent
from feldspar.core.manifest import (
    MANIFEST_NAME,
    NOT_LISTED,
    Manifest,
    changes_since,
    content_problem,
    is_manifest,
    kind_of,
    read_manifest,
    records_of,
    size_problem,
    unlisted_files,
    write_manifest,
)
from feldspar.core.progress import progress

THREADS = 8
SHOWN_BYTES = 1 << 30
"""Show the progress of comparisons of at least so many bytes, which take seconds."""

_AGAIN = {
    "documents": "build the documents again: feldspar corpus build RECIPE --overwrite",
    "deduplication": "deduplicate again: feldspar corpus dedup INPUT --out FOLDER --overwrite",
    "shards": "build the shards again: feldspar tokens build RECIPE --overwrite",
    "tokenizer": "restore the folder from a copy, or make the tokenizer again",
    "checkpoint": "restore it from a copy; without it the run goes on from the one before",
    "model": "export or import it again; after a change on purpose, delete its manifest.json",
    "release": "release the run again: feldspar release RUN --out FOLDER --overwrite",
}


class Artifact:
    """An artifact that ``open_artifact`` opened. Threads may share it."""

    def __init__(self, path: Path, manifest: Manifest, memory: ArtifactMemory) -> None:
        self.path = path
        self.manifest = manifest
        self._memory = memory
        self._locks = {name: threading.Lock() for name in manifest.files}
        self._found: dict[str, str | None] = {}

    def names(self, under: str = "", suffix: str = "") -> list[str]:
        """List the manifest's files below the folder ``under`` that end with ``suffix``, sorted."""
        start = f"{under.rstrip('/')}/" if under else ""
        listed = (name for name in self.manifest.files if name.startswith(start))
        return sorted(name for name in listed if name.endswith(suffix))

    def file(self, name: str) -> Path:
        """Return the path of a listed file after comparing it with its checksum.

        Raises RunError when they differ.
        """
        if name not in self.manifest.files:
            raise damaged(self.path / name, NOT_LISTED, self.manifest.kind)
        problem = self._problem(name)
        if problem is not None:
            raise damaged(self.path / name, problem, self.manifest.kind)
        return self.path / name

    def files(self, names: Sequence[str]) -> list[Path]:
        """Return the paths of listed files, which are compared side by side."""
        self._side_by_side(names)
        return [self.file(name) for name in names]

    def verify(self) -> None:
        """Compare every file with its checksum. Raises RunError that names the first to differ."""
        self.files(self.names())

    def problems(self) -> list[str]:
        """Compare every file with its checksum; return a line for each file that differs."""
        names = self.names()
        self._side_by_side(names)
        found = ((name, self._problem(name)) for name in names)
        return [f"{name}: {problem}" for name, problem in found if problem is not None]

    def verify_in_background(self, names: Iterable[str]) -> None:
        """Begin to compare files. A caller that asks for one of them waits for that file only."""
        left = iter(list(names))
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    name = next(left, None)
                if name is None:
                    break
                self._problem(name)
            self._memory.save()

        # Daemon threads, because a program that ends must not wait for them.
        for _ in range(_threads()):
            threading.Thread(target=work, name="feldspar-verify", daemon=True).start()

    def _side_by_side(self, names: Sequence[str]) -> None:
        left = [name for name in names if name not in self._found and not self._known(name)]
        sizes = [self.manifest.files[name].bytes for name in left]
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(_threads(), "feldspar-verify"))
            stack.callback(pool.shutdown, cancel_futures=True)
            if sum(sizes) >= SHOWN_BYTES:
                title = f"comparing {self.path} with its checksums"
                advance = stack.enter_context(progress(title, sum(sizes), "bytes"))
            else:
                advance = None
            for size, _ in zip(sizes, pool.map(self._problem, left), strict=True):
                if advance is not None:
                    advance(size)
        self._memory.save()

    def _known(self, name: str) -> bool:
        return self._memory.holds(name, self.manifest.files[name].sha256)

    def _problem(self, name: str) -> str | None:
        with self._locks[name]:
            if name not in self._found:
                self._found[name] = self._look_at(name)
            return self._found[name]

    def _look_at(self, name: str) -> str | None:
        path, record = self.path / name, self.manifest.files[name]
        if self._known(name):
            return None
        state = self._memory.state_of(name)
        problem = size_problem(path, record) or content_problem(path, record)
        if problem is None and state is not None:
            self._memory.remember(name, record.sha256, state)
        return problem


def open_artifact(path: Path, *kinds: str) -> Artifact:
    """Open a finished folder of one of ``kinds``, whose files exist and have the right sizes.

    Raises UserError when there is no such folder, or when it holds a file that its manifest does
    not list. Raises RunError for an altered manifest, a missing file or a file of another size.
    """
    manifest = read_manifest(path, *kinds)
    for name, record in sorted(manifest.files.items()):
        problem = size_problem(path / name, record)
        if problem is not None:
            raise damaged(path / name, problem, manifest.kind)
    if unlisted := unlisted_files(path, manifest):
        raise UserError(
            f"{path / unlisted[0]} is {NOT_LISTED}: it was added after the folder was made",
            found=", ".join(unlisted[:5]),
            do=f"move it out of {path}; to add data, build the folder again from all of it",
        )
    return Artifact(path, manifest, ArtifactMemory(path))


def open_if_artifact(path: Path) -> Artifact | None:
    """Open a folder with a manifest of feldspar like ``open_artifact``; return None without one.

    Plain folders, such as those of model hubs, have no such manifest.
    """
    return open_artifact(path) if is_manifest(path / MANIFEST_NAME) else None


@dataclass(frozen=True)
class Wanted:
    """The artifact that a command is to make: its kind, and the inputs that decide its content."""

    kind: str
    configuration: str | None = None
    """The digest of the settings that shape the content. None: settings are not compared."""
    settings: dict[str, Any] = field(default_factory=dict)
    """These settings as plain values, so that a message can show the differences."""
    parents: dict[str, str] | None = None
    """The digests of the input artifacts, by kind. None: they are not compared."""
    key: str = ""
    """The key of the recipe that names the folder, for messages. Empty: an argument names it."""

    def require_same(self, path: Path, found: Manifest) -> None:
        """Raise OtherArtifactError where ``found``, the manifest in ``path``, differs from this."""
        where = f"{self.key}: {path}" if self.key else str(path)
        do = f"choose another {self.key or 'folder'}, or pass --overwrite to replace it"
        same = self.configuration in (None, found.configuration)
        if not same and not (self.settings and self.settings == found.settings):
            changes = changes_since(found, self.settings)
            raise OtherArtifactError(f"{where} was built with other settings", found=changes, do=do)
        if self.parents is not None and found.parents != self.parents:
            names = " or ".join(self.parents)
            raise OtherArtifactError(f"{where} was built from other {names}", do=do)


class OtherArtifactError(UserError):
    """An artifact of the wanted kind with other settings or inputs. ``--overwrite`` may
    replace it.
    """


def find_artifact(path: Path, wanted: Wanted) -> Artifact | None:
    """Open the artifact in ``path`` if it is the ``wanted`` one; return None for an empty place.

    Raises OtherArtifactError where it has other settings or inputs, UserError where the folder
    holds something else, RunError where its manifest or a file is damaged.
    """
    if _is_absent(path):
        return None
    _require_manifest(path, wanted.kind, wanted.key)
    found = open_artifact(path, wanted.kind)
    wanted.require_same(path, found.manifest)
    return found


def require_replaceable(path: Path, kind: str) -> None:
    """Raise UserError where ``path`` holds anything that an artifact of ``kind`` may not replace.

    An artifact of that kind may be replaced, however damaged, old or different it is.
    """
    if _is_absent(path):
        return
    _require_manifest(path, kind)
    found = kind_of(path)
    if found is not None and found != kind:
        raise UserError(
            f"{path} holds {found}, not {kind}, so it is not replaced", do="choose another folder"
        )


def require_writable(path: Path, kind: str, overwrite: bool) -> None:
    """Raise UserError where ``path`` exists and, with ``overwrite``, may not be replaced."""
    if overwrite:
        require_replaceable(path, kind)
    else:
        require_absent(path)


def finish_artifact(
    folder: Path,
    wanted: Wanted,
    *,
    command: str = "",
    counts: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Manifest:
    """Write the manifest of a folder that is otherwise complete, and return the manifest."""
    manifest = Manifest(
        kind=wanted.kind,
        configuration=wanted.configuration or "",
        version=__version__,
        command=command,
        parents=wanted.parents or {},
        counts=counts or {},
        files=records_of(folder),
        warnings=list(warnings),
        settings=wanted.settings,
    )
    write_manifest(folder, manifest)
    return manifest


def _is_absent(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def _require_manifest(path: Path, kind: str, key: str = "") -> None:
    if not (path / MANIFEST_NAME).is_file():
        where = f"{key}: {path}" if key else str(path)
        raise UserError(
            f"{where} exists and holds no {MANIFEST_NAME}: it is not a finished {kind} folder",
            do=f"choose another {key or 'folder'}; feldspar never replaces what it did not make",
        )


def damaged(path: Path, problem: str, kind: str) -> RunError:
    """Return the error of a damaged file in a folder of a kind."""
    return RunError(f"{path} is damaged: {problem}", do=_AGAIN.get(kind, "make the folder again"))


def _threads() -> int:
    return min(available_cores(), THREADS)
