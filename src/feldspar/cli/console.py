"""Show results on standard output, progress and errors on standard error.

All text leaves through ``EscapingStream``, so that names and documents cannot steer a terminal.
"""

import re
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from threading import Timer
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from feldspar.core.errors import FeldsparError
from feldspar.core.json_files import json_text
from feldspar.core.progress import SEPARATOR
from feldspar.core.readable import short_duration

PLAIN_INTERVAL_SECONDS = 10.0
BAR_WIDTH = 24
PLAIN_BEGIN_SECONDS = 4.0
"""Work that takes longer than this is named when it is not shown live."""
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u202a-\u202e\u2066-\u2069"  # marks that turn the direction of writing
    "\ud800-\udfff]"  # halves of surrogate pairs, which have no bytes
)


def visible(text: str) -> str:
    r"""Write control characters as ``\u001b``, the form that JSON and Python read back."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class EscapingStream:
    """Write out control characters, and characters that the stream's encoding does not have."""

    def __init__(self, stream: Any) -> None:
        self.unescaped = stream

    def write(self, text: str) -> int:
        """Write ``text`` in its visible form."""
        self.unescaped.write(shown_on(self.unescaped, text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """Take everything else from the stream itself."""
        return getattr(self.unescaped, name)


def shown_on(stream: Any, text: str) -> str:
    """Return the visible form of ``text`` in characters that the encoding of ``stream`` has."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return visible(text).encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def escaped_output() -> Generator[None]:
    """Let what is printed in the block pass through ``EscapingStream``."""
    before = sys.stdout, sys.stderr
    _escape_streams()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _escape_streams() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, EscapingStream):
            setattr(sys, name, EscapingStream(stream))


def print_json(value: Any) -> None:
    """Write one JSON value to standard output, for machines; NaN and infinity become null."""
    sys.stdout.write(json_text(value))


def write_text(text: str) -> None:
    """Write text of a model to standard output at once: exact, but escaped on a terminal."""
    stream = sys.stdout
    if stream.isatty():
        stream.write(text)
    else:
        plain = getattr(stream, "unescaped", stream)
        encoding = getattr(plain, "encoding", None) or "utf-8"
        plain.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def print_error(error: FeldsparError) -> None:
    """Write the error's lines on standard error, if there still is one."""
    with suppress(OSError):
        sys.stderr.write(f"error: {error}\n")
        sys.stderr.flush()


class TerminalListener:
    """A live bar on a terminal; plain lines, no control characters, when piped."""

    def __init__(self) -> None:
        # What rich writes steers the terminal on purpose; the text in it is escaped here.
        self._console = Console(file=getattr(sys.stderr, "unescaped", sys.stderr))
        self._bars: Progress | None = None
        self._works: list[TaskID | Timer] = []
        """A bar, or the timer of a plain line, for each piece of work that has begun."""
        self._live: Live | None = None
        self._last_shown = 0.0

    def start(self, title: str, total: float | None, unit: str) -> Callable[[float], None]:
        """Show a bar, or print a line now and then."""
        if not self._console.is_terminal:
            return self._start_plain(title, total, unit)
        if self._bars is None:
            self.show(None)
            self._bars = Progress(
                TextColumn(
                    "{task.description}",
                    markup=False,
                    table_column=Column(no_wrap=True, overflow="ellipsis"),
                ),
                BarColumn(BAR_WIDTH),
                AmountColumn(Column(no_wrap=True)),
                console=self._console,
                transient=True,
            )
            self._bars.start()
            _escape_streams()  # rich put its own in their place
        bars = self._bars
        task = bars.add_task(visible(title), total=total, unit=unit)
        self._works.append(task)
        return lambda amount: bars.advance(task, amount)

    def finish(self) -> None:
        """Remove the bar of the work that was started last."""
        work = self._works.pop()
        if isinstance(work, Timer):
            work.cancel()
        elif self._bars is not None:
            with suppress(OSError):
                self._bars.remove_task(work)
                if not self._works:
                    self._bars.stop()
            if not self._works:
                self._bars = None

    def say(self, line: str) -> None:
        """Print one line, above the live ones."""
        # A terminal that was closed, or a full disk under a log, must not end a run.
        with suppress(OSError):
            if self._live is not None or self._bars is not None:
                self._console.print(visible(line), markup=False, highlight=False, soft_wrap=True)
            else:
                sys.stderr.write(visible(line) + "\n")

    def show(self, line: str | None) -> None:
        """Keep a line up to date, folded where it is too long; when piped, print it at times."""
        if not self._console.is_terminal:
            now = time.monotonic()
            if line is not None and now - self._last_shown >= PLAIN_INTERVAL_SECONDS:
                self._last_shown = now
                self.say(line)
        elif line is None:
            if self._live is not None:
                with suppress(OSError):
                    self._live.stop()
                self._live = None
        elif self._bars is None:
            if self._live is None:
                self._live = Live(console=self._console, transient=True, refresh_per_second=4)
                self._live.start()
                _escape_streams()
            folded = "\n".join(folded_line(visible(line), self._console.width))
            self._live.update(Text(folded, no_wrap=True, overflow="ellipsis"))

    def _start_plain(self, title: str, total: float | None, unit: str) -> Callable[[float], None]:
        done = 0.0
        last = time.monotonic()
        # Work that has nothing to count, or stays at its first unit, is not silent either.
        timer = Timer(PLAIN_BEGIN_SECONDS, lambda: self.say(f"{title} ..."))
        timer.daemon = True
        timer.start()
        self._works.append(timer)

        def advance(amount: float) -> None:
            nonlocal done, last
            done += amount
            if time.monotonic() - last >= PLAIN_INTERVAL_SECONDS:
                last = time.monotonic()
                share = f" ({done / total:.0%})" if total else ""
                self.say(f"{title}: {done:,.0f} {unit}{share}")

        return advance


class AmountColumn(ProgressColumn):
    """The amount that is done, its share, and the time left; nothing where nothing is counted."""

    def render(self, task: Task) -> Text:
        """Return the text beside a bar."""
        unit = task.fields["unit"]
        if not unit:
            return Text("")
        if not task.total:
            return Text(f"{task.completed:,.0f} {unit}")
        share = f"{task.completed / task.total:.0%} of {task.total:,.0f} {unit}"
        left = task.time_remaining
        return Text(share if left is None else f"{share}, {short_duration(left)} left")


def folded_line(line: str, width: int) -> list[str]:
    """Break a line of parts, between two of them, into lines of at most ``width`` characters."""
    first, *parts = line.split(SEPARATOR)
    lines = [first]
    for part in parts:
        longer = f"{lines[-1]}{SEPARATOR}{part}"
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines
