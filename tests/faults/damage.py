"""One byte flipped, a file cut or gone: in every file that a command reads."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.faults.engine import Fault
from tests.faults.workspace import HALF, TASKS, Task, files_of, place_of, restore

READERS: dict[str, tuple[str, ...]] = {
    "documents": ("encode", "train"),
    "shards": ("train", "show"),
    HALF: ("resume",),
    "run": ("evaluate", "export", "release", "report"),
    "exported": ("import",),
    "release": ("verify",),
}
"""The folders of the workspace, and who reads them."""
REPORTED = ("run/metrics.jsonl", "run/recipe.yaml")
"""The files that a report is made of; it takes seconds."""

PLACES = (0.0, 0.37, 0.99)
"""Where in a file a byte is flipped, as shares of its size."""


def flip(work: Path, name: str, place: float) -> None:
    """Flip the lowest bit of one byte."""
    path = work / name
    data = bytearray(path.read_bytes())
    data[min(int(place * len(data)), len(data) - 1)] ^= 1
    path.write_bytes(data)


def cut(work: Path, name: str, share: float) -> None:
    """Keep the first part of a file."""
    path = work / name
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def remove(work: Path, name: str) -> None:
    """Delete a file."""
    (work / name).unlink()


def flips(reference: Path) -> Iterator[Fault]:
    """Each file, three places."""
    for task, name in _read_files(reference):
        for place in PLACES if (reference / name).stat().st_size else ():
            strike = partial(flip, name=place_of(name), place=place)
            yield _fault("flips", reference, task, name, f"at {place:.0%}", strike)


def truncations(reference: Path) -> Iterator[Fault]:
    """Each file: emptied, halved, and without its last byte."""
    for task, name in _read_files(reference):
        for share in (0.0, 0.5, 1 - 1e-9) if (reference / name).stat().st_size else ():
            strike = partial(cut, name=place_of(name), share=share)
            yield _fault("truncations", reference, task, name, f"cut to {share:.0%}", strike)


def deletions(reference: Path) -> Iterator[Fault]:
    """Each file."""
    for task, name in _read_files(reference):
        yield _fault(
            "deletions", reference, task, name, "gone", partial(remove, name=place_of(name))
        )


def _fault(
    kind: str,
    reference: Path,
    task: Task,
    name: str,
    what: str,
    strike: Callable[[Path], object],
) -> Fault:
    folder = place_of(name).partition("/")[0]
    return Fault(
        kind,
        f"{task.name}: {name} {what}",
        task,
        strike=strike,
        undo=lambda work: restore(reference, work, name),
        names=(Path(name).name, folder),
        file=place_of(name),
    )


def _read_files(reference: Path) -> Iterator[tuple[Task, str]]:
    for folder, readers in READERS.items():
        for name in files_of(reference, folder):
            for reader in readers:
                if reader == "report" and name not in REPORTED:
                    continue
                yield TASKS[reader], name
