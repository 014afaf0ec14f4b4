"""The page of a run is written whatever became of the run's folder; what is damaged is named."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.errors import FeldsparError, RunError, UserError
from feldspar.core.machine import host_digest
from feldspar.recipe.load import load_recipe
from feldspar.recipe.write import recipe_text
from feldspar.report.run_comparison import different_keys, value_at
from feldspar.report.run_facts import State
from feldspar.report.run_report import read_all, read_metrics, run_page
from feldspar.report.run_summary import read_summary

SUMMARY: dict[str, Any] = {
    "recipe": "digest",
    "bits_per_byte": {"overall": 2.0, "a": 2.1},
    "baselines_by_source": {"zlib": {"overall": 3.0, "a": 3.1}},
    "documents": {"read": 5, "kept": 3, "removed": {"short": 2}},
    "seconds": {"training": 1.5},
    "samples": ["once upon"],
}
WRONG = [None, [], {}, "x", True, -1, 1e300, 10**400, [[1]], {"a": {"b": 1}}]


def record(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "tokens": 10 * step,
        "phase": "one",
        "train/loss": 3.0 - step / 10,
        "learning_rate": 0.01,
        "sequences": 8,
        "gradient_norm": "NaN" if step == 2 else 1.0,
        "tokens_per_second": 100.0,
        "validation/loss": 3.0,
        "validation/a/loss": 3.0,
        "validation/a/bits_per_byte": 2.0,
        "noise_scale/total": 5.0,
        "noise_scale/total/low": 4.0,
        "noise_scale/total/high": 6.0,
    }


def write_records(run: Path, records: list[dict[str, Any]]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run's folder without its checkpoints."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_records(folder, [record(step) for step in range(1, 7)])
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "recipe.yaml").write_text(recipe_text(load_recipe("cerebras-gpt/small")))
    return folder


def test_a_whole_run(run: Path) -> None:
    page = run_page([run])
    for words in ("after 60 tokens", "6 steps", "zlib", "once upon", "cerebras-gpt", "Noise scale"):
        assert words in page
    assert "Missing steps" not in page and "damaged" not in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: (run / "summary.json").write_bytes(b"\xff{"), "summary.json is damaged"),
        (lambda run: (run / "summary.json").unlink(), "60 tokens"),
        (lambda run: (run / "recipe.yaml").write_bytes(b"\xff: ["), "cannot be read"),
        (lambda run: write_records(run, [record(1), record(4)]), "leave them out: 2 to 3"),
        (lambda run: (run / "metrics.jsonl").open("ab").write(b'\xff\n{"step"'), "60 tokens"),
    ],
)
def test_what_is_damaged_is_named(run: Path, change: Callable[[Path], Any], words: str) -> None:
    change(run)
    assert words in run_page([run])


@pytest.mark.parametrize(
    "wrong", [None, {}, "x", -1, 10**400], ids=["none", "map", "text", "-1", "huge"]
)
def test_values_of_any_kind_are_no_traceback(run: Path, wrong: Any) -> None:
    """Each key of the records at once and one by one holds something else."""
    rows = [record(step) for step in range(1, 7)]
    keys = [key for key in rows[0] if key not in ("step", "tokens", "train/loss")]
    write_records(run, [row | dict.fromkeys(keys, wrong) | {"train/loss": 1} for row in rows])
    assert "60 tokens" in run_page([run])
    damaged = [row | {key: wrong} for row, key in zip(rows, ("step", "tokens"), strict=False)]
    write_records(run, damaged + rows[2:])
    assert [row["step"] for row in read_metrics(run)][-4:] == [3, 4, 5, 6]


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"[]\n", b"\xff", b"{", b"[" * 9999])
def test_records_without_a_step_are_said(run: Path, content: bytes) -> None:
    (run / "metrics.jsonl").write_bytes(content)
    with pytest.raises(UserError, match="holds no step yet"):
        run_page([run])


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        run_page([tmp_path])


def test_a_summary_is_whole_or_refused(run: Path) -> None:
    """Each key of the summary, at each depth, absent or of each wrong kind."""
    path = run / "summary.json"

    def places(value: Any) -> list[tuple[str, ...]]:
        if not isinstance(value, dict):
            return []
        return [(key, *rest) for key in value for rest in [(), *places(value[key])]]

    for place in places(SUMMARY):
        for wrong in [..., *WRONG]:
            changed = json.loads(json.dumps(SUMMARY))
            holder = changed
            for key in place[:-1]:
                holder = holder[key]
            if wrong is ...:
                del holder[place[-1]]
            else:
                holder[place[-1]] = wrong
            path.write_text(json.dumps(changed))
            try:
                summary = read_summary(run)
                assert summary is not None
                for values in summary.columns.values():
                    assert values["overall"] is not None
            except RunError as error:
                assert "summary.json is damaged" in error.what


@pytest.mark.slow
def test_any_flipped_byte_is_a_page_or_an_error_of_ours(run: Path) -> None:
    chance = random.Random(1)
    for name in ("metrics.jsonl", "summary.json", "recipe.yaml"):
        path = run / name
        whole = path.read_bytes()
        for place in chance.sample(range(len(whole)), 3):
            data = bytearray(whole)
            data[place] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            try:
                run_page([run])
            except FeldsparError as error:
                assert str(run) in str(error) or "cannot share a page" in error.what
        path.write_bytes(whole)


def test_runs_of_one_name_keep_both(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "run"
    other.mkdir(parents=True)
    write_records(other, [record(1)])
    page = run_page([run, other])
    assert f"Recipe of {run}" in page and f"Recipe of {other}" in page


def begin(run: Path, **details: Any) -> None:
    (run / "events.jsonl").write_text(json.dumps({"event": "started"} | details) + "\n")


def test_the_card_says_how_far_a_run_has_come(run: Path) -> None:
    mine = {"process": os.getpid(), "host": host_digest(), "parameters": 700_000}
    assert read_all([run])[0].state is State.UNKNOWN
    begin(run, length=60, **mine, time="2026-11-28T10:00:00+00:00")
    page = run_page([run])
    for words in ("finished", "700 k", "2026-11-28", "nothing seen", "the whole length"):
        assert words in page
    begin(run, length=120, **mine)
    assert read_all([run])[0].state is State.TRAINING and "50 % of 120" in run_page([run])
    begin(run, length=120, **mine | {"host": "elsewhere"})
    assert read_all([run])[0].state is State.UNFINISHED
    (run / "bad_batches.jsonl").write_text('{"step": 5, "tokens": 50}\n')
    assert read_all([run])[0].state is State.UNFINISHED, "that step was skipped"
    (run / "bad_batches.jsonl").write_text('{"step": 7, "tokens": 70}\n')
    assert read_all([run])[0].state is State.DIVERGED
    assert "1 step not finite" in run_page([run])


def test_the_card_says_whether_zeros_save_time(run: Path) -> None:
    begin(run, length=60)
    assert "Masked matrices" not in run_page([run])
    started = (run / "events.jsonl").read_text()
    for matrices, words in ((["a", "b"], ("2 of 12", "without their zeros")), ([], ("dense",))):
        event = {"event": "products", "matrices": matrices, "masked": 12}
        (run / "events.jsonl").write_text(started + json.dumps(event) + "\n")
        page = run_page([run])
        assert all(word in page for word in ("Masked matrices", *words))
        assert ("FLOPs not realised" in page) == (not matrices)


def test_what_stays_the_same_has_no_figure(run: Path) -> None:
    page = run_page([run])
    assert "Batch: " not in page and "Learning rate: " not in page and "Gradient norm: " not in page
    write_records(run, [record(step) | {"sequences": step} for step in range(1, 7)])
    assert "Batch: from 1 to 6 sequences" in run_page([run])


def test_time_and_flops_are_summed_over_the_steps(run: Path) -> None:
    rows = [record(step) | {"step_flops": 5.0} for step in range(1, 7)]
    write_records(run, rows)
    [facts] = read_all([run])
    assert facts.seconds == pytest.approx([0.1 * step for step in range(1, 7)])
    assert facts.flops == [5.0 * step for step in range(1, 7)]
    write_records(run, [*rows[:-1], record(6)])
    assert read_all([run])[0].flops is None


def test_runs_are_compared_by_the_keys_that_differ(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "wider"
    shutil.copytree(run, other)
    changed = recipe_text(load_recipe("cerebras-gpt/small", ["model.d_ff=1024"]))
    (other / "recipe.yaml").write_text(changed)
    page = run_page([run, other])
    side = page[page.index("Side by side") : page.index("<figure")]
    assert "model.d_ff" in side and "1024" in side and "model.d_model" not in side
    assert "The same over time" in page and "best two runs are equal" in page


def test_keys_of_any_depth_are_found() -> None:
    recipes = [
        {"a": {"b": [1, {"c": 2}]}, "d": 1, "name": "x"},
        {"a": {"b": [1, {"c": 3}]}, "e": 1},
    ]
    assert different_keys(recipes) == ["a.b.1.c", "d", "e"]
    assert [value_at(recipe, "a.b.1.c") for recipe in recipes] == [2, 3]
    assert value_at(recipes[0], "a.b.7") is None and value_at(recipes[0], "d.x") is None
