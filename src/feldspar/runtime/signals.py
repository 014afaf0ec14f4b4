"""Stop gracefully: the first SIGTERM, SIGINT or SIGHUP requests a stop, the second ends at once."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import NoReturn, Self

from feldspar.core.errors import EXIT_HUNG_UP, EXIT_INTERRUPTED, EXIT_TERMINATED
from feldspar.core.progress import say
from feldspar.runtime.collectives import all_reduce_sum

EXIT_CODES = {
    signal.SIGINT: EXIT_INTERRUPTED,
    signal.SIGTERM: EXIT_TERMINATED,
    signal.SIGHUP: EXIT_HUNG_UP,
}
"""Exit codes; if processes received different signals, the first code here is used by all."""
LAUNCHER_GRACE_SECONDS = 3.0
"""Time in which a signal from torchrun is the same one that the terminal already sent to us."""


class GracefulStop:
    """Within the block the first signal only sets ``requested``, and the loop stops when it can.

    The second signal ends the process at once, with the same exit code; unfinished files have
    temporary names. A second SIGHUP does not, because a shell and the kernel both send one when a
    terminal closes. SIGHUP stays ignored under ``nohup``. Outside the main thread, signals are not
    changed.
    """

    def __init__(self) -> None:
        self.exit_code = EXIT_TERMINATED
        self._first_time: float | None = None
        self._announced = False
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """True if this process was asked to stop."""
        return self._first_time is not None

    def requested_anywhere(self) -> bool:
        """Tell whether any process was asked to stop; each process calls this at the same point."""
        codes = list(EXIT_CODES.values())
        asked = all_reduce_sum([float(self.requested and self.exit_code == c) for c in codes])
        first = next((code for code, count in zip(codes, asked, strict=True) if count), None)
        if first is None:
            return False
        self.exit_code = first
        if not self._announced:
            self._announced = True
            say("stopping after a checkpoint; send the signal again to stop at once")
        return True

    def exit(self) -> NoReturn:
        """Exit with the documented code: 130 SIGINT, 143 SIGTERM, 129 SIGHUP."""
        raise SystemExit(self.exit_code)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
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
        if number == signal.SIGHUP:
            return
        grace = LAUNCHER_GRACE_SECONDS if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
        if now - self._first_time >= grace:
            os._exit(EXIT_CODES[signal.Signals(number)])
