"""The line that training shows."""

from typing import Any

import pytest

from feldspar.core.readable import short_duration
from feldspar.runtime.live import Shown, Speed, SpeedMeter, TrainingDisplay, peak_line


def state(**changed: Any) -> Shown:
    values: dict[str, Any] = {
        "phase": "warm-up",
        "step": 12,
        "position": 250_000,
        "loss": 3.14159,
        "learning_rate": 0.00125,
        "validation_loss": None,
        "speed": None,
    }
    return Shown(**values | changed)


def test_the_line_says_what_counts() -> None:
    display = TrainingDisplay(length=1_000_000, peak_flops_per_second=1e12)
    speed = Speed(5_000.0, 0.4e12)
    assert display.line(state(speed=speed, validation_loss=3.5)) == (
        "warm-up | step 12 | 25.0% | loss 3.1416 | validation 3.5000 | learning rate 0.00125 | "
        "5,000 tokens/s | 40% of peak | 2m30s left"
    )
    assert display.line(state()) == (
        "warm-up | step 12 | 25.0% | loss 3.1416 | learning rate 0.00125"
    )
    assert "of peak" not in display.line(state(speed=Speed(5_000.0, 2e12)))


def test_the_peak_is_explained() -> None:
    line = peak_line(151.4e9, measured=True, precision="float32")
    assert line.startswith("peak: 151 GFLOP/s in float32 (the fastest matrix product measured here")
    assert "989 TFLOP/s in bfloat16 (the data sheet's)" in peak_line(989e12, False, "bfloat16")


def test_it_goes_to_whoever_listens(news: Any) -> None:
    display = TrainingDisplay(length=100)
    display.update(state(position=50))
    display.close()
    assert news.shown == ["warm-up | step 12 | 50.0% | loss 3.1416 | learning rate 0.00125", None]


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
    assert short_duration(seconds) == text
