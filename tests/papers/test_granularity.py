"""The claims on blocks and on masks that move, on made-up figures: each can fail."""

from pathlib import Path

import pytest

from feldspar.core.records import append_record
from feldspar.papers.granularity.experiment import (
    ARM,
    ARMS,
    DENSE,
    LARGE,
    LEVELS,
    NARROW_90,
    PAPER,
    RIGL,
    SET,
    SHAPES,
    SMALL,
    SMALL_DENSE,
    STATIC,
    fast_tenth,
    judge,
    trials,
    weights_of,
)
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.paper import Figures, Scale, values_of
from feldspar.study.trials import Trial, TrialResult
from tests.papers.conftest import stated

CLAIMS = stated(PAPER)
WIGGLE = (0.0, 0.004, -0.004, 0.002, -0.002)
"""Half of a 95 % interval of 0.20 % at 2 bits."""


def figures(changed: dict[str, float], wiggle: tuple[float, ...] = WIGGLE) -> Figures:
    """Losses of five seeds, all alike but for the arms in ``changed``, which also wiggle."""
    seeds = [2.0, 2.1, 2.2, 2.0, 2.1]
    bits = {
        arm: [
            base + changed.get(arm, 0.0) + (noise if arm in changed else 0.0)
            for base, noise in zip(seeds, wiggle, strict=True)
        ]
        for arm in ARMS
    }
    speeds = {arm: [100.0, 110.0, 90.0, 100.0, 105.0] for arm in ARMS}
    return {
        "bits_per_byte": bits,
        "tokens_per_second": speeds | {"75-4x1": [200.0] * 5},
        "weights": dict.fromkeys(ARMS, 1000),
        "baselines": {"trigram": 2.25},
    }


def judged(changed: dict[str, float], wiggle: tuple[float, ...] = WIGGLE) -> dict[str, Claim]:
    found = judge(figures(changed, wiggle), Scale.SMALL, CLAIMS)
    return {claim.name: claim for claim in found.claims}


BLOCKS = [(level, shape) for level in LEVELS for shape in SHAPES[1:]]


@pytest.mark.parametrize(("level", "shape"), BLOCKS)
@pytest.mark.parametrize(
    ("more", "held"), [(-0.1, True), (0.01, True), (0.02, False), (0.1, False)]
)
def test_blocks_cost_little_only_if_the_whole_interval_says_so(
    level: str, shape: str, more: float, held: bool
) -> None:
    name = f"blocks-{shape}-at-{level}"
    found = judged({f"{level}-{shape}": more})
    assert found[name].borne_out is held
    others = [claim for key, claim in found.items() if key.startswith("blocks-") and key != name]
    assert all(claim.borne_out for claim in others)


def test_noise_does_not_help_blocks() -> None:
    wide = judged({"75-4x1": 0.0}, (0.05, -0.05, 0.05, -0.05, 0.0))["blocks-4x1-at-75"]
    assert wide.borne_out is False


@pytest.mark.parametrize("level", LEVELS)
def test_every_mask_must_beat_both_small_models(level: str) -> None:
    name = f"masks-beat-small-dense-at-{level}"
    small = {f"{level}-narrow-dense": 0.05, f"{level}-shallow-dense": 0.05}
    assert judged(small)[name].borne_out
    for changed in ({}, {f"{level}-narrow-dense": 0.0}, {f"{level}-shallow-dense": 0.0}):
        assert not judged(small | changed if changed else {})[name].borne_out
    assert not judged(small | {f"{level}-4x4": 0.05})[name].borne_out


@pytest.mark.parametrize(
    ("name", "arm", "other"),
    [
        ("rigl-beats-static", RIGL, STATIC),
        ("set-beats-static", SET, STATIC),
        ("rigl-beats-set", RIGL, SET),
        ("rigl-beats-narrow-dense", RIGL, NARROW_90),
    ],
)
def test_masks_that_move(name: str, arm: str, other: str) -> None:
    assert judged({arm: -0.05})[name].borne_out
    assert judged({other: 0.05})[name].borne_out
    assert not judged({arm: 0.05})[name].borne_out
    assert not judged({arm: -0.005})[name].borne_out, "0.25 % is less than counts"
    noisy = judged({arm: -0.03}, (0.1, -0.1, 0.1, -0.1, 0.0))[name]
    assert not noisy.borne_out and "is found in 80% of cases" in noisy.ours


def test_the_table_has_losses_and_speeds() -> None:
    found = judge(figures({"75-4x1": 0.021}), Scale.SMALL, CLAIMS)
    [table] = found.sections[0].tables
    rows = {row[0]: row for row in table.rows}
    assert list(rows) == [*ARMS, "no model: trigram"]
    assert all(len(row) == len(table.header) for row in table.rows)
    assert rows["no model: trigram"][2] == "2.2500"
    assert rows["75-4x1"][2] == "2.1010" and rows["75-4x1"][4].startswith("1.01% higher")
    assert rows["75-4x1"][5:] == ["200", "2.00"]
    assert rows[DENSE][3:5] == ["", ""] and rows[DENSE][6] == "1.00"


def test_time_is_saved_where_the_interval_says_so() -> None:
    assert judged({})["blocks-save-time"].borne_out, "200 tokens per second against 100"
    level = figures({})
    level["tokens_per_second"]["75-4x1"] = [102.0, 112.0, 92.0, 103.0, 107.0]
    [claim] = [c for c in judge(level, Scale.SMALL, CLAIMS).claims if c.name == "blocks-save-time"]
    assert claim.borne_out is False


def test_arms_change_faster_than_seeds() -> None:
    found = [values_of(trial) for trial in trials(Scale.SMALL)]
    assert [values[ARM] for values in found[: len(ARMS)]] == list(ARMS)
    assert [values["seed"] for values in found[:: len(ARMS)]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("recipe", [SMALL, LARGE])
def test_small_dense_models_have_the_weights_that_masks_leave(recipe: str) -> None:
    for level in (*LEVELS, "90"):
        masked = weights_of(recipe, STATIC if level == "90" else f"{level}-4x4")
        for kind in SMALL_DENSE if level in LEVELS else SMALL_DENSE[:1]:
            assert weights_of(recipe, f"{level}-{kind}") == pytest.approx(masked, rel=0.01)
    assert weights_of(recipe, DENSE) / weights_of(recipe, "75-1x1") == pytest.approx(4, rel=0.01)


def test_the_speed_is_that_of_the_fast_tenth(tmp_path: Path) -> None:
    for step in range(1, 100):
        append_record(
            tmp_path / "metrics.jsonl", {"step": step, "tokens": step, "tokens_per_second": step}
        )
    assert fast_tenth(TrialResult(Trial("x", ()), tmp_path, 1.0, {}, 1, 1.0)) == 90
