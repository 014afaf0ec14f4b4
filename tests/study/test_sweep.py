"""Sweeps: every combination of a grid, with seeds, under names that tell the runs apart."""

import math
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.recipe.yaml import parse_yaml
from feldspar.study.sweep import NAME_LIMIT, as_overrides, run_name, run_sweep, short_names
from tests.train.conftest import metrics_of

RATE = "parametrization.learning_rate"
SHORT = ("phases.0.length=4 steps", "phases.1.length=2 steps")


def test_a_sweep_is_the_grid_with_its_seeds(recipe_file: Path, tmp_path: Path) -> None:
    grid = {"optimizer.weight_decay": [0.0], RATE: [2e-3, 1e-2]}
    points = run_sweep(str(recipe_file), SHORT, grid, tmp_path / "sweep", seeds=2)
    assert [list(point.values.values()) for point in points] == [[0.0, 2e-3], [0.0, 1e-2]]
    first = points[0].results
    assert [run.folder.name for run in first] == [
        "weight_decay=0.0,learning_rate=0.002,seed=3",
        "weight_decay=0.0,learning_rate=0.002,seed=4",
    ]
    assert first[0].score != first[1].score
    mean = sum(run.score for run in first) / 2
    assert points[0].score == pytest.approx(mean)
    assert points[0].spread == pytest.approx(abs(first[0].score - first[1].score) / math.sqrt(2))
    assert len(metrics_of(first[0].folder)) == 6


def test_a_point_diverges_with_any_of_its_seeds(recipe_file: Path, tmp_path: Path) -> None:
    wild = (*SHORT, "optimizer.clip_norm=none")
    (point,) = run_sweep(str(recipe_file), wild, {RATE: [1e30]}, tmp_path)
    assert point.score == math.inf


text = st.text(string.printable + "\u00e9\u6f22\U0001f600")
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(1e-12, 1e6) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=4,
)


@given(plain)
def test_an_override_carries_any_plain_value(value: Any) -> None:
    key, _, written = as_overrides({"a.b": value})[0].partition("=")
    assert (key, parse_yaml(written, "override")[0]) == ("a.b", value)


@given(st.dictionaries(st.from_regex(r"[a-c](\.[a-c0-2]){0,3}", fullmatch=True), st.none()))
def test_short_keys_stay_apart(keys: dict[str, None]) -> None:
    shown = short_names(keys)
    assert len(set(shown.values())) == len(keys)
    assert all(key.endswith(short) for key, short in shown.items())


def test_names_of_runs_are_short_and_safe() -> None:
    values = {"a.batch": {"type": "x/y", "n": [1, 2]}, "b": "../up", "c": 1e-5}
    assert run_name(values) == "batch=type_x_y_n_1_2,b=.._up,c=1e-05"
    long = {f"key{index}": index for index in range(40)}
    assert len(run_name(long)) == NAME_LIMIT
    assert run_name(long) != run_name(long | {"key39": -1})
