"""MediSwift's claims on made-up figures: each can fail, none holds where nothing was learned."""

import pytest

from feldspar.papers.kit.claims import Verdict
from feldspar.papers.kit.paper import Scale, by_name, values_of
from feldspar.papers.mediswift.claims import (
    DENSE,
    HALF,
    MASKS_KEPT,
    MOST_FREQUENT,
    SMALL_DENSE,
    SPARSE,
    accuracy_claims,
    flops_claim,
    small_dense_claim,
    time_claim,
)
from feldspar.papers.mediswift.experiment import ARMS, SEEDS, arm_table, flops_ratio, trials
from tests.papers.conftest import finished

ACCURACIES = {
    DENSE: [0.80, 0.81, 0.82],
    HALF: [0.80, 0.81, 0.81],
    SPARSE: [0.79, 0.80, 0.81],
    MASKS_KEPT: [0.75, 0.76, 0.78],
    SMALL_DENSE: [0.7, 0.71, 0.72],
}
WITHOUT = {MOST_FREQUENT: 0.2, "bag of words": 0.5}


def test_level_accuracies_and_freed_weights() -> None:
    level, freed = accuracy_claims(ACCURACIES, WITHOUT, "cost")
    assert level.verdict is freed.verdict is Verdict.MECHANISM_SHOWN
    assert "75% -1.0 points (+- 0.0)" in level.ours and "dense 81.0% (+- 2.5%)" in level.ours
    assert "+3.7 points (+- 1.4)" in freed.ours
    assert "bag of words 50.0%" in level.ours and "No model is needed" not in level.reason
    for claim in (
        level,
        freed,
        small_dense_claim({SPARSE: [2.0], SMALL_DENSE: [2.1]}, ACCURACIES, ""),
    ):
        assert "no learning rate was tuned for an arm" in claim.ours
    easy, _ = accuracy_claims(ACCURACIES, WITHOUT | {"bag of words": 0.8}, "cost")
    assert "No model is needed for this task" in easy.reason


def test_a_mean_of_two_standard_errors_shows_nothing() -> None:
    """The committed run: differences of 1, 1 and 4 of 960 labels, mean equal to two errors."""
    kept = [own - right / 960 for own, right in zip(ACCURACIES[SPARSE], (1, 1, 4), strict=True)]
    _, freed = accuracy_claims(ACCURACIES | {MASKS_KEPT: kept}, WITHOUT, "")
    assert freed.verdict is Verdict.NOT_BORNE_OUT


def test_a_noisy_comparison_is_not_level() -> None:
    noisy = ACCURACIES | {HALF: [0.77, 0.85, 0.81]}
    level, _ = accuracy_claims(noisy, WITHOUT, "")
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
    claims = accuracy_claims(ACCURACIES | changed, without, "")
    assert [claim.borne_out for claim in claims] == expected


def test_one_seed_shows_no_difference() -> None:
    single = {name: own[:1] for name, own in ACCURACIES.items()}
    level, freed = accuracy_claims(single, WITHOUT, "")
    assert level.borne_out and not freed.borne_out and "one seed" in freed.ours


def test_width_against_density_and_time() -> None:
    bits = {SPARSE: [2.0, 2.01], SMALL_DENSE: [2.1, 2.11]}
    assert small_dense_claim(bits, ACCURACIES, "").borne_out
    assert not small_dense_claim(bits | {SMALL_DENSE: [2.0, 2.0]}, ACCURACIES, "").borne_out
    assert time_claim("").verdict is Verdict.NEEDS_SCALE, "no time is measured"


def test_the_ledger_gives_the_printed_ratios() -> None:
    ratios = {size: flops_ratio(size) for size in ("med", "large", "xl")}
    claim = flops_claim(ratios)
    assert claim.verdict is Verdict.MECHANISM_SHOWN and "xl 2.535" in claim.ours
    assert not flops_claim(ratios | {"med": 2.0}).borne_out


def test_arms_and_seeds_come_in_order() -> None:
    runs = finished(trials(Scale.SMALL), lambda values: values["seed"])
    for name, own in by_name(runs, tuple(ARMS)).items():
        assert [run.score for run in own] == list(range(SEEDS[Scale.SMALL]))
        assert all(values_of(run.trial).items() >= ARMS[name].items() for run in own)
    table = arm_table({name: [2.0] for name in ARMS}, ACCURACIES, {"bag of words": 0.809})
    assert table.rows[-1] == ["bag of words", "", "80.9%"] and len(table.rows) == len(ARMS) + 1
