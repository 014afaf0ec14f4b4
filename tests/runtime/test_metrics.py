"""metrics.jsonl goes on whatever a tracker does."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.records import read_records
from feldspar.runtime.metrics import MetricsWriter
from feldspar.runtime.run_folder import RunFolder


def test_tensorboard_gets_what_the_file_gets(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = MetricsWriter(RunFolder(tmp_path), ("tensorboard",))
    for step in (1, 2):
        writer.write(step, 10 * step, {"train/loss": 2.5 / step})
    writer.sync()
    writer.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("train/loss")
    assert [(event.step, event.value) for event in scalars] == [(1, 2.5), (2, 1.25)]
    assert [record["train/loss"] for record in read_records(tmp_path / "metrics.jsonl")] == [
        2.5,
        1.25,
    ]


def test_a_resumed_run_has_one_point_a_step_in_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = RunFolder(tmp_path)
    for resumed_at, loss in ((0, 3.0), (2, 2.0)):
        folder.restore(resumed_at, 10 * resumed_at)
        for file in (tmp_path / "tensorboard").glob("*"):  # late in its second
            file.rename(file.with_suffix(".~"))
        writer = MetricsWriter(folder, ("tensorboard",))
        for step in range(resumed_at + 1, resumed_at + 4):
            writer.write(step, 10 * step, {"train/loss": loss})
        writer.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert points == [(1, 3.0), (2, 3.0), (3, 2.0), (4, 2.0), (5, 2.0)]


def test_a_missing_extra_is_said_once(
    tmp_path: Path, news: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    writer = MetricsWriter(RunFolder(tmp_path), ("tensorboard",))
    writer.write(1, 10, {"train/loss": 1.0})
    writer.close()
    assert len(news.lines) == 1 and "feldspar[track-tensorboard]" in news.lines[0]
    assert len(list(read_records(tmp_path / "metrics.jsonl"))) == 1


class FailingTracker:
    def __init__(self) -> None:
        self.calls = 0

    def log(self, step: int, tokens: int, metrics: Mapping[str, float]) -> None:
        self.calls += 1
        raise ConnectionError("the server is down")

    def close(self) -> None:
        raise AssertionError("left out by then")


def test_a_failing_tracker_is_said_once_and_left_out(tmp_path: Path, news: Any) -> None:
    tracker = FailingTracker()
    writer = MetricsWriter(
        RunFolder(tmp_path), trackers={"server": lambda folder, first_step: tracker}
    )
    for step in range(1, 4):
        writer.write(step, 10 * step, {"train/loss": 1.0})
    writer.close()
    assert tracker.calls == 1
    assert len(news.lines) == 1 and "server is down" in news.lines[0]
    assert len(list(read_records(tmp_path / "metrics.jsonl"))) == 3
