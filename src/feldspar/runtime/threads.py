"""Choose the number of processor threads by measurement, without changing any bit of the results.

Threads that share a product wait for each other. On a quiet machine two threads are nearly twice as
fast as one; beside another job they may be slower. So a run compares one thread with all, takes the
faster number, and compares again when it becomes slower and from time to time.

The number of threads may change the order of additions in an operation, and so the last bits of its
result. That depends on the shapes of tensors, not on their values. So each shape of micro-batch is
tried with both numbers when it first occurs. If all gradients have the same bits, any number may be
used at any time. Otherwise the run uses the number that it chose at its start (``home``), which its
records name. The update of the weights is small, so one thread does it whenever there is a choice.
Validation uses ``home``.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from feldspar.core.execution import available_cores
from feldspar.core.progress import say
from feldspar.recipe.sections.runtime import CommonRuntime

RECENT = 3
"""Number of passes that show the current speed, and of passes with the other number for a
change."""
SLOWER = 1.25
"""A pass that takes this many times as long as before is a sign of another job."""
FASTER = 1.1
"""Advantage that justifies a change; a smaller one may be noise."""
TRIAL_SHARE = 0.02
"""Share of the time that trials of the slower number may cost."""
START_SECONDS, START_ROUNDS = 1.0, (2, 8)
"""Seconds, and smallest and largest number of rounds, for timing each number at a run's start."""
REPEATED_AT = (1, 2, 4, 8, 16)
"""Passes at which a shape is tried again while its gradients are all zero, which prove nothing."""

Rehearsal = Callable[[], tuple[float, str | None]]
"""Seconds of passes that change nothing, and a digest of loss and gradients (or None)."""


def set_threads(settings: CommonRuntime) -> int:
    """Apply ``runtime.threads`` and return it; ``auto``: all threads that torch and the machine
    allow."""
    number = settings.threads
    if number == "auto":
        number = min(torch.get_num_threads(), available_cores())
    torch.set_num_threads(number)
    return number


class Pace:
    """Decide the number of threads of the next pass from the times of earlier passes."""

    def __init__(self, number: int, other: int, seconds: dict[int, float] | None = None) -> None:
        self.number, self.other = number, other
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._trial: list[float] = []
        self._trying = False
        self._since = self._wait = 0.0
        self._usual = float("inf")
        if seconds is not None:
            self._usual = seconds[number]
            self._wait = max(seconds[other] - seconds[number], 0.0) / TRIAL_SHARE

    def next(self) -> int:
        """Return the number of the next pass."""
        return self.other if self._trying else self.number

    def observe(self, seconds: float) -> dict[int, float] | None:
        """Take the seconds of the pass; return both numbers' seconds if the faster one has
        changed."""
        if self._trying:
            self._trial.append(seconds)
            return self._judge()
        self._recent.append(seconds)
        self._since += seconds
        if len(self._recent) == RECENT:
            self._usual = min(self._usual, _mean(self._recent))
            slower = min(self._recent) > SLOWER * self._usual
            # After a trial without gain even a slow run waits, because its speed may vary.
            self._trying = self._since >= (self._wait / 5 if slower else self._wait)
        return None

    def _judge(self) -> dict[int, float] | None:
        tried, usual = _mean(self._trial), _mean(self._recent)
        is_faster = tried * FASTER < usual
        if is_faster and len(self._trial) < RECENT:
            return None
        cost = max(sum(self._trial) - len(self._trial) * usual, usual)
        self._wait, self._since = cost / TRIAL_SHARE, 0.0
        self._usual, self._trying = usual, False
        self._trial, passes = [], self._trial
        if not is_faster:
            return None
        self.number, self.other = self.other, self.number
        self._recent.clear()
        self._recent.extend(passes)
        self._usual = tried
        return {self.number: tried, self.other: usual}


@dataclass
class _Shape:
    """Knowledge about micro-batches of one shape."""

    passes: int = 0
    same_bits: bool | None = None
    pace: Pace | None = None


class ThreadChoice:
    """Numbers of threads of a run: the one in its records, and another that is compared with it.

    Without ``other`` there is no choice. ``decided`` is False before a run starts; its first pass
    then decides which number is ``home``.
    """

    def __init__(self, home: int, other: int | None = None, decided: bool = True) -> None:
        self.home = home
        self.decided = decided or other is None
        self.most = max(home, other or home)
        self._other = other
        self._now = home
        self._shapes: dict[Hashable, _Shape] = {}
        self._news: list[dict[str, Any]] = []
        torch.set_num_threads(home)

    @contextmanager
    def passes(self, shape: Hashable, rehearse: Rehearsal, may_change: bool) -> Generator[None]:
        """Run forward and backward of a micro-batch with the faster number.

        Passes without ``may_change`` use ``home``.
        """
        pace = None
        if self._other is not None and (may_change or not self.decided):
            pace = self._prepared(shape, rehearse, may_change).pace
        if pace is None:
            yield
            return
        self._now = pace.next()
        torch.set_num_threads(self._now)
        began = time.perf_counter()
        try:
            yield
        finally:
            torch.set_num_threads(self.home)
        changed = pace.observe(time.perf_counter() - began)
        if changed is not None:
            self._now = pace.number
            self._tell({"number": pace.number, "before": pace.other}, changed)

    @contextmanager
    def update(self) -> Generator[None]:
        """Run the rest of a step with one thread, if there is a choice."""
        if self._other is None:
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(self.home)

    def take_news(self) -> list[dict[str, Any]]:
        """Return the decisions since the last call, for the run's events."""
        news, self._news = self._news, []
        return news

    def _prepared(self, key: Hashable, rehearse: Rehearsal, may_change: bool) -> _Shape:
        """Return the knowledge about the shape; try it first if that is due."""
        assert self._other is not None
        shape = self._shapes.setdefault(key, _Shape())
        shape.passes += 1
        if shape.same_bits is None and (shape.passes in REPEATED_AT or not self.decided):
            tried = {n: self._with(n, rehearse) for n in (self.home, self._other)}
            digests = {digest for _, digest in tried.values()}
            if not may_change:
                shape.same_bits = False
            elif None not in digests:
                shape.same_bits = len(digests) == 1
            seconds = None
            if not self.decided:
                seconds = self._decide(rehearse, {n: tried[n][0] for n in tried}, shape.same_bits)
            if shape.same_bits:
                number = self.home if seconds is not None else self._now
                other = self._other if number == self.home else self.home
                shape.pace = Pace(number, other, seconds)
        return shape

    def _decide(
        self, rehearse: Rehearsal, first: dict[int, float], same_bits: bool | None
    ) -> dict[int, float]:
        """Time both numbers, make the faster one ``home``, and return the seconds of a pass."""
        assert self._other is not None
        seconds: dict[int, list[float]] = {n: [] for n in first}
        if sum(first.values()) > 4 * START_SECONDS:
            seconds = {n: [first[n]] for n in first}
        else:
            fewest, most = START_ROUNDS
            for done in range(most):
                if done >= fewest and sum(map(sum, seconds.values())) > 2 * START_SECONDS:
                    break
                for number, own in seconds.items():
                    own.append(self._with(number, rehearse)[0])
        means = {n: _mean(own) for n, own in seconds.items()}
        if means[self._other] < means[self.home]:
            self.home, self._other = self._other, self.home
        self.decided, self._now = True, self.home
        torch.set_num_threads(self.home)
        self._tell({"home": self.home, "may_change": same_bits}, means)
        return means

    def _with(self, number: int, rehearse: Rehearsal) -> tuple[float, str | None]:
        torch.set_num_threads(number)
        try:
            return rehearse()
        finally:
            torch.set_num_threads(self.home)

    def _tell(self, what: dict[str, Any], seconds: dict[int, float]) -> None:
        self._news.append(what | {"seconds": {str(n): own for n, own in seconds.items()}})
        number = what.get("number", self.home)
        other = next(n for n in seconds if n != number)
        say(
            f"threads: {number} (a pass takes {seconds[number]:.3g} s; with {other}, "
            f"{seconds[other]:.3g} s)"
        )


def choose_threads(
    settings: CommonRuntime, device: torch.device, world_size: int, recorded: int | None
) -> ThreadChoice:
    """Return the choice of a run that begins (``recorded`` None) or continues with its number.

    There is a choice only for a single process on a processor with several cores, with ``threads``
    auto.
    """
    most = set_threads(settings)
    if settings.threads != "auto" or device.type != "cpu" or world_size > 1 or most == 1:
        return ThreadChoice(most)
    if recorded is None or recorded > most:
        return ThreadChoice(most, 1, decided=False)
    return ThreadChoice(recorded, most if recorded == 1 else 1)


def _mean(values: deque[float] | list[float]) -> float:
    return sum(values) / len(values)
