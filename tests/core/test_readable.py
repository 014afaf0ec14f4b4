"""Numbers for readers."""

from feldspar.core.readable import (
    amount,
    counted,
    decimals_of,
    duration,
    precise,
    tick,
    with_interval,
)


def test_amounts_have_prefixes() -> None:
    shown = [amount(value) for value in (0, 96, 2048, 5_100_000, 999_999, 1.5e12)]
    assert shown == ["0", "96", "2.05 k", "5.1 M", "1 M", "1.5 T"]


def test_durations_have_two_units() -> None:
    shown = [duration(seconds) for seconds in (0.25, 42, 293, 3600, 7260, 90_000)]
    assert shown == ["0.25 s", "42 s", "4 min 53 s", "1 h", "2 h 1 min", "1 d 1 h"]


def test_digits_follow_the_interval() -> None:
    assert with_interval(0.05612, 0.0312) == "0.056 \u00b1 0.031"
    assert with_interval(0.05612, 0.0512, sign=True) == "+0.06 \u00b1 0.05"
    assert with_interval(1.5219, None) == "1.52"
    assert with_interval(-12.3, 4.0) == "-12 \u00b1 4"
    assert [decimals_of(half) for half in (0.00354, 0.0036, 0.36, 3.5, 36)] == [4, 3, 1, 1, 0]


def test_numbers_of_axes_are_plain() -> None:
    shown = [tick(value) for value in (0, 0.001, 0.5, 2000, 300_000, 1e12, 1e18, 2e-6)]
    powers = ["10\u00b9\u2078", "2\u00b710\u207b\u2076"]
    assert shown == ["0", "0.001", "0.5", "2000", "300 k", "1 T", *powers]
    assert tick(3.0, 1) == "3.0" and precise(3.2) == "3.20"


def test_counts_have_nouns() -> None:
    assert [counted(n, "file") for n in (0, 1, 1200)] == ["0 files", "1 file", "1,200 files"]
