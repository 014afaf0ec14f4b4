"""Draws that can be repeated, on the right scale, and a search that goes on where it stopped."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import RunError, UserError
from feldspar.recipe.sections.study import Range
from feldspar.study.search import (
    STARTUP_TRIALS,
    RandomSampler,
    Sampler,
    TpeSampler,
    best_point,
    search_proxy,
)
from tests.train.conftest import metrics_of

RATE = "parametrization.learning_rate"
STD = "parametrization.init_std"
SPACE = {RATE: Range(low=1e-4, high=1e-1), STD: Range(low=0.1, high=0.3, scale="linear")}
QUICK = ("phases.0.length=4 steps", "phases.1.length=2 steps")

Values = dict[str, Any]


def study(text: str) -> tuple[str, ...]:
    return (*QUICK, f"study={{{text}}}")


@pytest.mark.parametrize("sampler", [RandomSampler, TpeSampler])
def test_the_same_seed_draws_the_same(sampler: Callable[..., Sampler]) -> None:
    def draws(seed: int, counts: list[int]) -> list[Values]:
        source, drawn = sampler(SPACE, seed), []
        for count in counts:
            new = source.draw(count)
            source.learn([values[STD] for values in new])
            drawn += new
        return drawn

    assert draws(7, [4, 4, 4, 4]) == draws(7, [4, 4, 4, 4])
    assert draws(7, [4, 4, 2]) == draws(7, [4, 4, 4])[:10]
    assert draws(7, [4]) != draws(8, [4])


def test_a_key_more_changes_no_draw_of_another() -> None:
    both = RandomSampler(SPACE, 5).draw(6)
    alone = RandomSampler({RATE: SPACE[RATE]}, 5).draw(6)
    assert [values[RATE] for values in both] == [values[RATE] for values in alone]


@given(st.integers(0, 2**32), st.floats(1e-8, 1e3), st.floats(1.001, 1e6))
def test_a_draw_is_inside_its_range(seed: int, low: float, ratio: float) -> None:
    for scale in ("log2", "linear"):
        choice = Range(low=low, high=low * ratio, scale=scale)
        for values in RandomSampler({"key": choice}, seed).draw(5):
            assert choice.low <= values["key"] <= choice.high


@pytest.mark.parametrize("key", [RATE, STD])
def test_draws_are_uniform_on_their_scale(key: str) -> None:
    count = 2000
    drawn = np.array([values[key] for values in RandomSampler(SPACE, 11).draw(count)])
    choice = SPACE[key]
    change = np.log if choice.scale == "log2" else np.asarray
    low, high = change(choice.low), change(choice.high)
    shares = np.sort((change(drawn) - low) / (high - low))
    # Kolmogorov's distance stays below 1.95 / sqrt(n) with probability 0.999; the seed is fixed.
    assert np.abs(shares - np.arange(count) / count).max() < 1.95 / math.sqrt(count)


def test_lists_are_combined_each_once() -> None:
    space = {"a": (1, 2, 3), "b": ("x", None)}
    drawn = RandomSampler(space, 3).draw(50)
    assert len(drawn) == 6
    assert {(values["a"], values["b"]) for values in drawn} == {
        (a, b) for a in (1, 2, 3) for b in ("x", None)
    }
    beside_a_range = RandomSampler(space | {RATE: SPACE[RATE]}, 3).draw(200)
    counts = np.bincount([values["a"] for values in beside_a_range])[1:]
    assert counts.min() > 200 / 3 - 3 * math.sqrt(200 * 2 / 9)


def rates_after(score: Callable[[float], float], rounds: int = 25) -> list[float]:
    """The learning rates that the estimator draws once it has learnt from the first rounds."""
    sampler = TpeSampler({RATE: SPACE[RATE], "list": (1, {"a": [2]})}, 2)
    rates = []
    for _ in range(rounds):
        drawn = sampler.draw(4)
        assert all(values["list"] in (1, {"a": [2]}) for values in drawn)
        sampler.learn([score(values[RATE]) for values in drawn])
        rates += [values[RATE] for values in drawn]
    return rates[STARTUP_TRIALS:]


def test_the_estimator_goes_where_the_loss_is_low() -> None:
    rates = rates_after(lambda rate: abs(math.log2(rate / 3e-3)))
    near = sum(abs(math.log2(rate / 3e-3)) < 1 for rate in rates) / len(rates)
    assert near > 0.4  # a fifth of the range lies within a factor of two


def test_the_estimator_keeps_away_from_divergence() -> None:
    rates = rates_after(lambda rate: math.inf if rate > 3e-3 else 2.0)
    diverged = sum(rate > 3e-3 for rate in rates) / len(rates)
    assert diverged < 0.3  # half of the range diverges


def test_a_search_is_run_folders_and_goes_on(recipe_file: Path, tmp_path: Path) -> None:
    vary = f"vary: {{{RATE}: {{low: 1e-3, high: 1e-1}}, optimizer.weight_decay: [0.0, 0.1]}}"
    small = search_proxy(str(recipe_file), study(f"{vary}, search: {{trials: 2}}"), tmp_path)
    assert [sorted(point.values) for point in small] == [["optimizer.weight_decay", RATE]] * 2
    run = small[0].results[0]
    assert run.folder.parent == tmp_path and len(metrics_of(run.folder)) == 6
    events = (run.folder / "events.jsonl").read_bytes()
    large = search_proxy(str(recipe_file), study(f"{vary}, search: {{trials: 3}}"), tmp_path)
    assert [point.score for point in large[:2]] == [point.score for point in small]
    assert (run.folder / "events.jsonl").read_bytes() == events
    assert best_point(large).score == min(point.score for point in large)


def test_the_estimator_searches_in_rounds_and_repeats_itself(
    recipe_file: Path, tmp_path: Path
) -> None:
    text = f"vary: {{{RATE}: {{low: 1e-3, high: 1e-1}}}}, "
    text += "search: {sampler: tpe, trials: 3, round_trials: 2}"
    first = search_proxy(str(recipe_file), study(text), tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert search_proxy(str(recipe_file), study(text), tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_a_grid_of_a_range_is_walked(recipe_file: Path, tmp_path: Path) -> None:
    text = f"vary: {{{RATE}: {{low: 0.0078125, high: 0.03125, points: 3}}}}"
    points = search_proxy(str(recipe_file), study(text), tmp_path)
    assert sorted(point.values[RATE] for point in points) == [2**-7, 2**-6, 2**-5]


def test_a_search_in_which_all_diverges_ends_so(recipe_file: Path, tmp_path: Path) -> None:
    text = f"vary: {{{RATE}: [1e30, 2e30]}}"
    wild = (*study(text), "optimizer.clip_norm=none")
    points = search_proxy(str(recipe_file), wild, tmp_path)
    with pytest.raises(RunError, match="all 2 trials diverged"):
        best_point(points)
    assert json.loads((points[0].results[0].folder / "trial.json").read_text())["diverged"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("seeds: 1", "study.vary: the recipe does not say what to search"),
        (
            "vary: {optimizer.betas: {low: 0.1, high: 0.9}}",
            "study.vary.optimizer.betas: the key does not accept a number of this range",
        ),
        (
            "vary: {model.n_layers: {low: 1, high: 8}}",
            "study.vary.model.n_layers: the key does not accept a number of this range",
        ),
        ("vary: {model.n_layer: [1, 2]}", "did you mean 'model.n_layers'"),
        (f"vary: {{{RATE}: {{low: 1, high: 1e-3}}}}", "low: 1 must be less than high: 0.001"),
        (f"vary: {{{RATE}: [1e-3]}}, search: {{trials: 0}}", "study.search.trials"),
        (f"vary: {{{RATE}: [1e-3]}}, search: {{sampler: grid}}", "study.search.sampler"),
        (f"vary: {{{RATE}: [1e-3]}}, score: accuracy", "study.score: unknown metric"),
        (f"vary: {{{RATE}: []}}", "study.vary"),
        (f"vary: {{{RATE}: [1e-3, -1]}}", RATE),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_runs(
    recipe_file: Path, tmp_path: Path, text: str, what: str
) -> None:
    with pytest.raises(UserError, match=what):
        search_proxy(str(recipe_file), study(text), tmp_path / "out")
    assert not (tmp_path / "out").exists()
