"""A polite stop: the first SIGTERM or SIGINT asks for it, the second ends the process at once."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import NoReturn, Self

from feldspar.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED
from feldspar.core.progress import say
from feldspar.runtime.collectives import all_reduce_sum

EXIT_CODES = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED}
LAUNCHER_GRACE_SECONDS = 3.0
"""torchrun passes a signal on that the terminal has sent to us already."""


class GracefulStop:
    """Inside the block the first signal only sets ``requested``; the loop stops when it suits.

    The second signal ends the process at once, with the same exit code: what was being written has
    a temporary name. Outside the main thread, signals stay as they are.
    """

    def __init__(self) -> None:
        self.exit_code = EXIT_TERMINATED
        self._first_time: float | None = None
        self._announced = False
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self._first_time is not None

    def requested_anywhere(self) -> bool:
        """Whether any process was asked to stop; each process calls this at the same point."""
        interrupted = self.requested and self.exit_code == EXIT_INTERRUPTED
        stops, interrupts = all_reduce_sum([float(self.requested), float(interrupted)])
        if interrupts:
            self.exit_code = EXIT_INTERRUPTED
        if stops and not self._announced:
            self._announced = True
            say("stopping with a checkpoint; the same signal again stops at once")
        return stops > 0

    def exit(self) -> NoReturn:
        """Leave with the documented exit code, 130 for SIGINT and 143 for SIGTERM."""
        raise SystemExit(self.exit_code)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyrefly: ignore
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_time is None:
            self._first_time = now
            self.exit_code = EXIT_CODES[signal.Signals(number)]
            return
        grace = LAUNCHER_GRACE_SECONDS if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
        if now - self._first_time >= grace:
            os._exit(EXIT_CODES[signal.Signals(number)])
