"""One thread or all: the faster is taken, and none where a bit could change."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from feldspar.recipe.sections.runtime import RuntimeSettings
from feldspar.runtime import threads
from feldspar.runtime.threads import Pace, Rehearsal, ThreadChoice, choose_threads, set_threads

CPU = torch.device("cpu")
QUIET, BUSY = {1: 0.45, 2: 0.26}, {1: 0.38, 2: 0.93}
"""Seconds of a pass of the quickstart by number of threads, alone and beside a busy process."""


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of two cores, and torch's number as it was afterwards."""
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def spent(pace: Pace, load: Callable[[float], dict[int, float]], total: float) -> list[float]:
    """Seconds of each pass until ``total`` are over, on a machine with a changing load."""
    seconds: list[float] = []
    while sum(seconds) < total:
        now = load(sum(seconds))[pace.next()]
        pace.observe(now)
        seconds.append(now)
    return seconds


@pytest.mark.parametrize("load", [QUIET, BUSY])
@pytest.mark.parametrize("first", [1, 2])
def test_a_steady_machine_loses_little_to_trials(load: dict[int, float], first: int) -> None:
    seconds = spent(Pace(first, 3 - first), lambda _: load, 200)
    assert len(seconds) * min(load.values()) >= 0.95 * sum(seconds)


@pytest.mark.parametrize(("before", "after"), [(QUIET, BUSY), (BUSY, QUIET)])
def test_a_change_of_load_is_noticed(before: dict[int, float], after: dict[int, float]) -> None:
    first = min(before, key=before.__getitem__)
    pace = Pace(first, 3 - first, before)
    spent(pace, lambda now: before if now < 100 else after, 200)
    assert pace.number == min(after, key=after.__getitem__)


def test_a_drop_of_speed_is_answered_at_once() -> None:
    pace = Pace(2, 1, QUIET)
    seconds = spent(pace, lambda now: QUIET if now < 50 else BUSY, 60)
    assert seconds.count(BUSY[2]) <= threads.RECENT
    assert pace.number == 1


def test_a_load_that_comes_and_goes_does_not_cost_a_trial_each_time() -> None:
    """Both numbers slow down alike: no change helps, and trials stay rare."""
    slow = {n: 2 * own for n, own in BUSY.items()}
    pace = Pace(1, 2, BUSY)
    seconds = spent(pace, lambda now: slow if int(now / 10) % 2 else BUSY, 500)
    trials = sum(own in (BUSY[2], slow[2]) for own in seconds)
    assert sum(seconds) * 0.2 > trials * slow[2]


def rehearsal(load: dict[int, float], digests: dict[int, str | None], done: list[int]) -> Rehearsal:
    def rehearse() -> tuple[float, str | None]:
        number = torch.get_num_threads()
        done.append(number)
        return load[number], digests[number]

    return rehearse


SAME, DIFFERENT = {1: "same", 2: "same"}, {1: "one", 2: "two"}


@pytest.mark.parametrize(("load", "home"), [(QUIET, 2), (BUSY, 1)])
@pytest.mark.parametrize("digests", [SAME, DIFFERENT])
def test_the_first_pass_decides(
    load: dict[int, float], home: int, digests: dict[int, str | None]
) -> None:
    choice = choose_threads(RuntimeSettings(), CPU, 1, None)
    done: list[int] = []
    with choice.passes("shape", rehearsal(load, digests, done), may_change=True):
        assert torch.get_num_threads() == home
    assert choice.home == torch.get_num_threads() == home
    assert done.count(1) == done.count(2) >= 3
    (news,) = choice.take_news()
    assert news["home"] == home and news["may_change"] is (digests is SAME)
    assert choice.take_news() == []


def numbers_taken(choice: ThreadChoice, rehearse: Rehearsal, **options: Any) -> set[int]:
    """With how many threads 40 passes ran."""
    taken = set()
    for _ in range(40):
        with choice.passes("shape", rehearse, **{"may_change": True} | options):
            taken.add(torch.get_num_threads())
    return taken


@pytest.mark.parametrize("home", [1, 2])
def test_where_bits_differ_the_number_of_the_record_is_kept(home: int) -> None:
    choice = choose_threads(RuntimeSettings(), CPU, 1, home)
    done: list[int] = []
    assert numbers_taken(choice, rehearsal(BUSY, DIFFERENT, done)) == {home}
    assert sorted(done) == [1, 2]
    assert choice.take_news() == []


def test_where_bits_are_the_same_both_numbers_are_tried() -> None:
    choice = choose_threads(RuntimeSettings(), CPU, 1, 2)
    assert numbers_taken(choice, rehearsal(BUSY, SAME, [])) == {1, 2}
    assert choice.home == torch.get_num_threads() == 2


def test_one_thread_updates_where_there_is_a_choice() -> None:
    for choice, number in ((ThreadChoice(2, 1), 1), (ThreadChoice(2), 2)):
        with choice.update():
            assert torch.get_num_threads() == number
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("recorded", "home"), [(1, 1), (None, 2)])
def test_passes_that_may_change_nothing_stay_at_home(recorded: int | None, home: int) -> None:
    done: list[int] = []
    choice = choose_threads(RuntimeSettings(), CPU, 1, recorded)
    rehearse = rehearsal(QUIET, SAME, done)
    assert numbers_taken(choice, rehearse, may_change=False) == {home}
    assert (done == []) is (recorded is not None)


def test_gradients_of_zeros_prove_nothing() -> None:
    choice = choose_threads(RuntimeSettings(), CPU, 1, 2)
    done: list[int] = []
    digests: dict[int, str | None] = {1: None, 2: None}
    assert numbers_taken(choice, rehearsal(BUSY, digests, done)) == {2}
    assert len(done) == 2 * len(threads.REPEATED_AT)


@pytest.mark.parametrize(
    ("settings", "device", "world_size", "number"),
    [
        (RuntimeSettings(threads=1), CPU, 1, 1),
        (RuntimeSettings(threads=5), CPU, 1, 5),
        (RuntimeSettings(), CPU, 2, 2),
        (RuntimeSettings(), torch.device("cuda"), 1, 2),
    ],
)
def test_what_is_told_or_shared_is_not_tried(
    settings: RuntimeSettings, device: torch.device, world_size: int, number: int
) -> None:
    choice = choose_threads(settings, device, world_size, None)
    done: list[int] = []
    assert numbers_taken(choice, rehearsal(BUSY, SAME, done)) == {number}
    assert done == []


def test_auto_takes_no_more_than_the_machine_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set_threads(RuntimeSettings()) == 2
    monkeypatch.setattr(threads, "available_cores", lambda: 1)
    assert set_threads(RuntimeSettings()) == 1
    # A record of a larger machine: its number cannot be had here.
    assert choose_threads(RuntimeSettings(), CPU, 1, 2).home == 1
