"""Finished folders: files are compared with their checksums before anything is read from them.

``open_folder`` reads the manifest and looks at names and sizes. A file's content is compared when a
reader first asks for it; the result is remembered outside the folder (``core.verified_memory``).
"""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from feldspar.core.errors import RunError, UserError
from feldspar.core.execution import available_cores
from feldspar.core.manifest import (
    MANIFEST_NAME,
    NOT_LISTED,
    Manifest,
    content_problem,
    is_manifest,
    kind_of,
    read_manifest,
    size_problem,
    unlisted_files,
)
from feldspar.core.progress import progress
from feldspar.core.verified_memory import VerifiedMemory

THREADS = 8
SHOWN_BYTES = 1 << 30
"""Comparing so much takes seconds: the progress is shown."""

_AGAIN = {
    "documents": "build the documents again: feldspar corpus build RECIPE --overwrite",
    "deduplication": "deduplicate again: feldspar corpus dedup INPUT --out FOLDER --overwrite",
    "shards": "build the shards again: feldspar tokens build RECIPE --overwrite",
    "tokenizer": "restore the folder from a copy, or make the tokenizer again",
    "checkpoint": "restore it from a copy; without it the run goes on from the one before",
    "model": "export or import it again; after a change on purpose, delete its manifest.json",
    "release": "release the run again: feldspar release RUN --to FOLDER --overwrite",
}


class VerifiedFolder:
    """A folder and its manifest; make one with ``open_folder``. Threads may share it."""

    def __init__(self, path: Path, manifest: Manifest, memory: VerifiedMemory) -> None:
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
        """Compare every file with its checksum; returns a line for each that differs."""
        names = self.names()
        self._side_by_side(names)
        found = ((name, self._problem(name)) for name in names)
        return [f"{name}: {problem}" for name, problem in found if problem is not None]

    def verify_in_background(self, names: Iterable[str]) -> None:
        """Begin to compare files; whoever asks for one of them waits for that one only."""
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

        # Daemons: a program that ends does not wait for them.
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


def open_folder(path: Path, *kinds: str) -> VerifiedFolder:
    """Open a finished folder of one of ``kinds``; its files are there and of the right sizes.

    Raises UserError when there is no such folder or it holds a file that its manifest does not
    list, RunError that names an altered manifest, a missing file or one of another size.
    """
    manifest = read_manifest(path, *kinds)
    for name, record in sorted(manifest.files.items()):
        problem = size_problem(path / name, record)
        if problem is not None:
            raise damaged(path / name, problem, manifest.kind)
    if unlisted := unlisted_files(path, manifest):
        raise UserError(
            f"{path / unlisted[0]} is {NOT_LISTED}: the folder holds more than what was made",
            found=", ".join(unlisted[:5]),
            do=f"move it out of {path}; to add data, build the folder again from all of it",
        )
    return VerifiedFolder(path, manifest, VerifiedMemory(path))


def open_if_finished(path: Path) -> VerifiedFolder | None:
    """Open a folder that holds a manifest of ours as ``open_folder``; None where it holds none.

    Plain folders, such as those of model hubs, come without.
    """
    return open_folder(path) if is_manifest(path / MANIFEST_NAME) else None


def require_replaceable(path: Path, kind: str) -> None:
    """Raise UserError when a folder is to be replaced by one of ``kind`` and holds another kind.

    A damaged folder, or one of another version, may be replaced.
    """
    found = kind_of(path)
    if found is not None and found != kind:
        raise UserError(
            f"{path} holds {found}, not {kind}, so it is not replaced", do="choose another folder"
        )


def damaged(path: Path, problem: str, kind: str) -> RunError:
    """Return the error of a damaged file in a folder of a kind."""
    return RunError(f"{path} is damaged: {problem}", do=_AGAIN.get(kind, "make the folder again"))


def _threads() -> int:
    return min(available_cores(), THREADS)
