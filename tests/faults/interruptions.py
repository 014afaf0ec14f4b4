"""Kills and signals, at instants all along each command that writes."""

import signal
from collections.abc import Iterator, Mapping

from tests.faults.engine import Fault, spread
from tests.faults.instants import at_event, send
from tests.faults.workspace import MAKERS, TASKS

KILLS_A_TASK = 12
INSTANTS_A_SIGNAL = 3


def kills(changes: Mapping[str, int]) -> Iterator[Fault]:
    """SIGKILL at changes of the file system from the first to the last of each task."""
    for name in MAKERS:
        task = TASKS[name]
        for number in spread(changes[name], KILLS_A_TASK):
            yield Fault(
                "kills",
                f"{name}: killed at change {number}",
                task,
                inside=at_event(number, send(signal.SIGKILL)),
                deaths=(signal.SIGKILL,),
            )


def signals(changes: Mapping[str, int]) -> Iterator[Fault]:
    """SIGTERM, SIGINT and SIGHUP early, half-way and late."""
    for name in MAKERS:
        task = TASKS[name]
        for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for number in spread(changes[name], INSTANTS_A_SIGNAL):
                yield Fault(
                    "signals",
                    f"{name}: {sent.name} at change {number}",
                    task,
                    inside=at_event(number, send(sent)),
                    deaths=(sent,),
                )
