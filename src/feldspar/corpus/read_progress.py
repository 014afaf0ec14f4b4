"""Show how many bytes units have read while they still read, also in other processes.

Each unit writes its progress into a small file; the main process looks at these files twice a
second.
"""

import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from threading import Event, Lock, Thread

from feldspar.core.progress import progress

LOOK_SECONDS = 0.5
WRITTEN_BYTES = 1 << 18
"""A unit writes down how far it is after so many bytes more."""
_MEGABYTE = 1_000_000


class Meter:
    """Counts the bytes that one unit has read, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._written = 0

    def add(self, count: int) -> None:
        """Count bytes; a file that cannot be written is no reason to stop reading."""
        self._read += count
        if self._read - self._written >= WRITTEN_BYTES:
            self._written = self._read
            with suppress(OSError):
                self._path.write_text(str(self._read), encoding="ascii")


_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered(path: Path | None) -> Generator[None]:
    """Let what is read in the block be counted in the file ``path``."""
    token = _meter.set(None if path is None else Meter(path))
    try:
        yield
    finally:
        _meter.reset(token)


def bytes_read(count: int) -> None:
    """Count bytes of the source that is being read, as they lie on the disk."""
    meter = _meter.get()
    if meter is not None:
        meter.add(count)


class ReadProgress:
    """Adds up what finished and unfinished units have read, and passes on what is new."""

    def __init__(
        self, folder: Path, sizes: Sequence[int], advance: Callable[[float], None]
    ) -> None:
        self._folder = folder
        self._sizes = sizes
        self._advance = advance
        self._finished = 0
        self._told = 0
        self._lock = Lock()

    def meter(self, number: int) -> Path:
        """Name the file of a unit."""
        return self._folder / str(number)

    def finish(self, number: int) -> None:
        """Count a unit as read, whatever its file says."""
        with self._lock:
            self.meter(number).unlink(missing_ok=True)
            self._finished += self._sizes[number]
        self.look()

    def look(self) -> None:
        """Read all files, and pass on what has been read since the last look."""
        with self._lock:
            now = self._finished + sum(map(self._so_far, self._folder.iterdir()))
            if now > self._told:
                self._advance((now - self._told) / _MEGABYTE)
                self._told = now

    def _so_far(self, path: Path) -> int:
        try:
            read = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):  # just finished, or just being written
            return 0
        return min(read, self._sizes[int(path.name)])


@contextmanager
def read_progress(title: str, folder: Path, sizes: Sequence[int]) -> Generator[ReadProgress]:
    """Show the progress of units that read ``sizes`` bytes each; their files lie in ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stop = Event()
    with progress(title, sum(sizes) / _MEGABYTE, "MB") as advance:
        told = ReadProgress(folder, sizes, advance)

        def look_on() -> None:
            while not stop.wait(LOOK_SECONDS):
                with suppress(OSError):
                    told.look()

        thread = Thread(target=look_on, daemon=True)
        thread.start()
        try:
            yield told
        finally:
            stop.set()
            thread.join()
