"""Progress goes to whoever listens; a room's names are resolved when first used."""

from collections.abc import Callable

import pytest

from feldspar.core.progress import listening, progress, say, show


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def start(self, title: str, total: float | None, unit: str) -> Callable[[float], None]:
        self.events.append((title, total, unit))
        return self.events.append

    def finish(self) -> None:
        self.events.append("finish")

    def say(self, line: str) -> None:
        self.events.append(line)

    def show(self, line: str | None) -> None:
        self.events.append(("show", line))


def test_progress_is_told_to_the_listener_inside_the_block_only() -> None:
    recorder = Recorder()
    say("before")
    with listening(recorder):
        with progress("work", 10, "bytes") as advance:
            advance(4)
        say("done")
        show("state")
        show(None)
    say("after")
    with progress("silent") as advance:
        advance(1)
    expected = [("work", 10, "bytes"), 4, "finish", "done", ("show", "state"), ("show", None)]
    assert recorder.events == expected


def test_a_failed_piece_of_work_ends_too() -> None:
    recorder = Recorder()
    with listening(recorder), pytest.raises(KeyError), progress("work"):
        raise KeyError
    assert recorder.events[-1] == "finish"
