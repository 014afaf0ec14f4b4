"""MediSwift's claims on made-up figures: each can fail, none holds where nothing was learned."""

import pytest

from feldspar.papers.kit.claims import Verdict
from feldspar.papers.kit.paper import Scale, by_name, values_of
from feldspar.papers.mediswift.experiment import (
    ARMS,
    DENSE,
    HALF,
    MASKS_KEPT,
    MOST_FREQUENT,
    PAPER,
    SEEDS,
    SMALL_DENSE,
    SPARSE,
    arm_table,
    dense_tuning_claim,
    flops_claim,
    flops_ratio,
    level_claim,
    small_dense_claim,
    trials,
)
from tests.papers.conftest import finished, stated

CLAIMS = stated(PAPER)
ACCURACIES = {
    DENSE: [0.80, 0.81, 0.82],
    HALF: [0.80, 0.81, 0.81],
    SPARSE: [0.79, 0.80, 0.81],
    MASKS_KEPT: [0.75, 0.76, 0.78],
    SMALL_DENSE: [0.7, 0.71, 0.72],
}
WITHOUT = {MOST_FREQUENT: 0.2, "bag of words": 0.5}


def test_level_accuracies_and_freed_weights() -> None:
    level = level_claim(ACCURACIES, WITHOUT, CLAIMS)
    freed = dense_tuning_claim(ACCURACIES, CLAIMS)
    assert level.verdict is freed.verdict is Verdict.MECHANISM_SHOWN
    assert "75% -1.0 points (+- 0.0)" in level.ours and "dense 81.0% (+- 2.5%)" in level.ours
    assert "+3.7 points (+- 1.4)" in freed.ours
    assert "bag of words 50.0%" in level.ours and "No model is needed" not in level.reason
    for claim in (
        level,
        freed,
        small_dense_claim({SPARSE: [2.0], SMALL_DENSE: [2.1]}, ACCURACIES, CLAIMS),
    ):
        assert "no learning rate was tuned for an arm" in claim.ours
    easy = level_claim(ACCURACIES, WITHOUT | {"bag of words": 0.8}, CLAIMS)
    assert "No model is needed for this task" in easy.reason


def test_a_mean_of_two_standard_errors_shows_nothing() -> None:
    """The committed run: differences of 1, 1 and 4 of 960 labels, mean equal to two errors."""
    kept = [own - right / 960 for own, right in zip(ACCURACIES[SPARSE], (1, 1, 4), strict=True)]
    freed = dense_tuning_claim(ACCURACIES | {MASKS_KEPT: kept}, CLAIMS)
    assert freed.verdict is Verdict.NOT_BORNE_OUT


def test_a_noisy_comparison_is_not_level() -> None:
    noisy = ACCURACIES | {HALF: [0.77, 0.85, 0.81]}
    level = level_claim(noisy, WITHOUT, CLAIMS)
    assert level.borne_out is False, "its mean is dense's, but the interval is wide"


@pytest.mark.parametrize(
    ("changed", "most_frequent", "expected"),
    [
        ({SPARSE: [0.77, 0.78, 0.78]}, 0.2, [False, False]),
        ({HALF: [0.6, 0.6, 0.6]}, 0.2, [False, True]),
        ({MASKS_KEPT: [0.79, 0.80, 0.81]}, 0.2, [True, False]),
        ({}, 0.75, [False, True]),  # dense itself knows little more than one label
    ],
)
def test_what_does_not_hold_is_not_shown(
    changed: dict[str, list[float]], most_frequent: float, expected: list[bool]
) -> None:
    without = WITHOUT | {MOST_FREQUENT: most_frequent}
    own = ACCURACIES | changed
    claims = level_claim(own, without, CLAIMS), dense_tuning_claim(own, CLAIMS)
    assert [claim.borne_out for claim in claims] == expected


def test_one_seed_shows_no_difference() -> None:
    single = {name: own[:1] for name, own in ACCURACIES.items()}
    level = level_claim(single, WITHOUT, CLAIMS)
    freed = dense_tuning_claim(single, CLAIMS)
    assert level.borne_out and not freed.borne_out and "one seed" in freed.ours


def test_width_against_density() -> None:
    bits = {SPARSE: [2.0, 2.01], SMALL_DENSE: [2.1, 2.11]}
    assert small_dense_claim(bits, ACCURACIES, CLAIMS).borne_out
    assert not small_dense_claim(bits | {SMALL_DENSE: [2.0, 2.0]}, ACCURACIES, CLAIMS).borne_out


def test_the_ledger_gives_the_printed_ratios() -> None:
    ratios = {size: flops_ratio(size) for size in ("med", "large", "xl")}
    claim = flops_claim(ratios, CLAIMS)
    assert claim.verdict is Verdict.MECHANISM_SHOWN and "xl 2.535" in claim.ours
    assert not flops_claim(ratios | {"med": 2.0}, CLAIMS).borne_out


def test_arms_and_seeds_come_in_order() -> None:
    runs = finished(trials(Scale.SMALL), lambda values: values["seed"])
    for name, own in by_name(runs, tuple(ARMS)).items():
        assert [run.score for run in own] == list(range(SEEDS[Scale.SMALL]))
        assert all(values_of(run.trial).items() >= ARMS[name].items() for run in own)
    table = arm_table({name: [2.0] for name in ARMS}, ACCURACIES, {"bag of words": 0.809})
    assert table.rows[-1] == ["bag of words", "", "80.9%"] and len(table.rows) == len(ARMS) + 1
