"""Write metrics of each step to metrics.jsonl and to optional trackers, whose failure is
harmless."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from feldspar.core.progress import say
from feldspar.core.records import Mark, RecordFile
from feldspar.runtime.collectives import is_first
from feldspar.runtime.run_folder import RunFolder


class Tracker(Protocol):
    """Receiver of the metrics of each step."""

    def log(self, step: int, position: int, metrics: Mapping[str, float]) -> None:
        """Take one step's metrics."""
        ...

    def close(self) -> None:
        """Write what is left and close."""
        ...


def _tensorboard(folder: Path, first_step: int) -> Tracker:
    from feldspar.runtime.tensorboard import TensorBoardTracker

    return TensorBoardTracker(folder / "tensorboard", first_step)


MakeTracker = Callable[[Path, int], Tracker]
"""Makes a tracker from the run's folder and the first step that it will get."""

TRACKERS: dict[str, MakeTracker] = {"tensorboard": _tensorboard}
"""The shipped trackers, by the names that recipes use."""


class MetricsWriter:
    """Write one record for each step and pass it to the trackers; does nothing on ranks other than
    0.

    ``trackers`` names shipped ones, or maps names to functions that make a tracker. A tracker that
    fails is reported once and not used any more.
    """

    def __init__(
        self,
        folder: RunFolder,
        trackers: Iterable[str] | Mapping[str, MakeTracker] = (),
    ) -> None:
        makers = trackers if isinstance(trackers, Mapping) else {n: TRACKERS[n] for n in trackers}
        self._file = RecordFile(folder.metrics) if is_first() else None
        self._position_unit = folder.position_unit
        self._trackers: dict[str, Tracker] = {}
        first_step = 1 + max((record["step"] for record in folder.steps()), default=0)
        for name, make in makers.items() if is_first() else ():
            try:
                self._trackers[name] = make(folder.path, first_step)
            except Exception as error:
                _warn(name, error)

    def write(self, step: int, position: int, metrics: Mapping[str, float | str]) -> None:
        """Record one step, which ended at ``position``; trackers get the numbers.

        Names have slashes, such as train/loss.
        """
        if self._file is None:
            return
        self._file.append({"step": step, self._position_unit: position, **metrics})
        numbers = {name: value for name, value in metrics.items() if not isinstance(value, str)}
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.log(step, position, numbers)
            except Exception as error:
                del self._trackers[name]
                _warn(name, error)

    def mark(self) -> Mark | None:
        """Return data that identify the records so far; None on ranks other than 0."""
        return None if self._file is None else self._file.mark()

    def sync(self) -> None:
        """Write the records to the disk; called before each checkpoint."""
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        """Close the file and the trackers."""
        if self._file is not None:
            self._file.close()
        for name, tracker in self._trackers.items():
            try:
                tracker.close()
            except Exception as error:
                _warn(name, error)


def _warn(name: str, error: Exception) -> None:
    reason = str(error).replace("\n", ";") or type(error).__name__
    say(f"warning: {name} is not used any more, metrics.jsonl is still written: {reason}")
