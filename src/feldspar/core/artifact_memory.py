"""Remember which files were compared with their checksums, so that large files are read once.

The memory lies in the user's cache, not in the folder that it is about: a copied folder brings no
trust along. An entry holds a file's device, inode, size and times; a changed, replaced or copied
file differs in one of them. Losing the memory costs time only.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from feldspar.core.errors import FeldsparError
from feldspar.core.files import cache_folder, digest_of, write_atomically

SETTLED_NANOSECONDS = 2_000_000_000
"""A file that changed within this time could change again without getting a new time."""
MOST_FOLDERS = 500

State = list[int]
"""Device, inode, size, time of modification and time of change, in nanoseconds."""


class ArtifactMemory:
    """Remembered checks of the files of one folder, by their names in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._entries: dict[str, list[str | int]] = {}
        self._new: dict[str, list[str | int]] = {}
        # Without a home or the right to read it there is no memory.
        with suppress(OSError, RuntimeError):
            place = folder.stat()
            key = digest_of(str(folder.resolve()), str(place.st_dev), str(place.st_ino))
            self._path = cache_folder() / "verified" / f"{key}.json"
            self._entries = _read(self._path)

    def state_of(self, name: str) -> State | None:
        """Return what identifies a file's content without reading it; None when it is gone."""
        try:
            found = (self._folder / name).stat()
        except OSError:
            return None
        return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]

    def holds(self, name: str, sha256: str) -> bool:
        """Tell whether a file had this digest and is unchanged since."""
        entry, state = self._entries.get(name), self.state_of(name)
        return entry is not None and state is not None and entry == [sha256, *state]

    def remember(self, name: str, sha256: str, state: State) -> None:
        """Remember that a file had this digest in this state, which was taken before it was
        read.
        """
        if time.time_ns() - max(state[3:]) > SETTLED_NANOSECONDS:
            self._new[name] = [sha256, *state]

    def save(self) -> None:
        """Write new entries to disk. A memory that cannot be written is silently left out."""
        if not self._new or self._path is None:
            return
        # Other threads may add entries meanwhile.
        self._entries, self._new = self._entries | self._new, {}
        with suppress(OSError, FeldsparError):
            text = json.dumps(_read(self._path) | self._entries)
            write_atomically(self._path, text)
            _forget_oldest(self._path.parent)


def _read(path: Path) -> dict[str, list[str | int]]:
    data = None
    with suppress(OSError, ValueError, RecursionError):
        data = json.loads(path.read_bytes())
    return data if isinstance(data, dict) else {}


def _forget_oldest(folder: Path) -> None:
    with os.scandir(folder) as entries:
        files = sorted((entry.stat().st_mtime_ns, entry.path) for entry in entries)
    for _, path in files[:-MOST_FOLDERS]:
        Path(path).unlink(missing_ok=True)
