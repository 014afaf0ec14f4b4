"""The line that training shows."""

from typing import Any

import pytest

from feldspar.runtime.live import Speed, SpeedMeter, TrainingDisplay, duration


def test_the_line_says_what_counts() -> None:
    display = TrainingDisplay(length=1_000_000, peak_flops_per_second=1e12)
    line = display.line("warm-up", 12, 250_000, 3.14159, Speed(5_000.0, 0.4e12))
    assert line == (
        "warm-up | step 12 | 25.0% | loss 3.1416 | 5,000 tokens/s | 40% of peak | 2m30s left"
    )
    assert display.line("warm-up", 1, 0, 3.0, None) == "warm-up | step 1 | 0.0% | loss 3.0000"
    assert "of peak" not in display.line("warm-up", 12, 250_000, 3.0, Speed(5_000.0, 2e12))


def test_it_goes_to_whoever_listens(news: Any) -> None:
    display = TrainingDisplay(length=100)
    display.update("all", 1, 50, 2.0, None)
    display.close()
    assert news.shown == ["all | step 1 | 50.0% | loss 2.0000", None]


def test_speed_leaves_out_the_first_step_and_pauses() -> None:
    times = iter([0.0, 2.0, 4.0, 100.0, 102.0])
    meter = SpeedMeter(clock=lambda: next(times))
    assert meter.step(1000, 10.0) is None
    assert meter.step(1000, 10.0) == Speed(500.0, 5.0)
    meter.step(1000, 10.0)
    meter.pause()
    meter.step(1000, 10.0)
    speed = meter.step(1000, 10.0)
    assert speed is not None and speed.positions_per_second == pytest.approx(500.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (7500, "2h05m"), (273_600, "3d04h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
