"""MediSwift's claims on made-up figures: each can fail, none holds where nothing was learned."""

import json
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.reproduce.claims import Verdict
from feldspar.reproduce.data import prepare
from feldspar.reproduce.mediswift import (
    ARMS,
    PAPER,
    PRETRAIN,
    SEEDS,
    arm_table,
    flops_ratio,
    step_seconds,
    trials,
)
from feldspar.reproduce.mediswift_claims import (
    DENSE,
    HALF,
    MASKS_KEPT,
    SMALL_DENSE,
    SPARSE,
    accuracy_claims,
    flops_claim,
    small_dense_claim,
    time_claim,
)
from feldspar.reproduce.paper import Scale, by_name, values_of
from feldspar.study.trials import TrialResult
from tests.reproduce.conftest import finished

ACCURACIES = {
    DENSE: [0.80, 0.81, 0.82],
    HALF: [0.80, 0.81, 0.81],
    SPARSE: [0.79, 0.80, 0.81],
    MASKS_KEPT: [0.75, 0.76, 0.78],
    SMALL_DENSE: [0.7, 0.71, 0.72],
}


def test_level_accuracies_and_freed_weights() -> None:
    level, freed = accuracy_claims(ACCURACIES, 0.2, "cost")
    assert level.verdict is freed.verdict is Verdict.MECHANISM_SHOWN
    assert "75% -1.0 points (+- 0.0)" in level.ours and "dense 81.0% (+- 0.6%)" in level.ours
    assert "+3.7 points (+- 0.3)" in freed.ours


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
    claims = accuracy_claims(ACCURACIES | changed, most_frequent, "")
    assert [claim.borne_out for claim in claims] == expected


def test_one_seed_shows_no_difference() -> None:
    single = {name: own[:1] for name, own in ACCURACIES.items()}
    level, freed = accuracy_claims(single, 0.2, "")
    assert level.borne_out and not freed.borne_out and "one seed" in freed.ours


def test_width_against_density_and_time() -> None:
    bits = {SPARSE: [2.0, 2.01], SMALL_DENSE: [2.1, 2.11]}
    assert small_dense_claim(bits, ACCURACIES, "").borne_out
    assert not small_dense_claim(bits | {SMALL_DENSE: [2.0, 2.0]}, ACCURACIES, "").borne_out
    slow = time_claim({DENSE: [0.1, 0.1], SPARSE: [0.11, 0.11]}, "")
    assert slow.verdict is Verdict.NEEDS_SCALE and "10.00% more" in slow.ours
    assert time_claim({DENSE: [0.1, 0.1], SPARSE: [0.05, 0.04]}, "").borne_out


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


def test_the_time_of_a_step_is_that_of_pretraining(tmp_path: Path) -> None:
    rows = [(1, 100, PRETRAIN, 50.0), (2, 200, PRETRAIN, 50.0), (3, 300, PRETRAIN, 25.0)]
    rows.append((4, 400, "finetune", 1.0))
    keys = ("step", "tokens", "phase", "tokens_per_second")
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    run = TrialResult(trials(Scale.QUICK)[0], tmp_path, 1.0, {}, 400, 1.0)
    assert step_seconds(run) == pytest.approx((2 + 4) / 2)


def test_missing_documents_name_the_commands_that_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        prepare(PAPER.data)
    assert caught.value.do == (
        "feldspar corpus ontology hpo --out data/mediswift/hpo && "
        "feldspar corpus build mediswift/small"
    )
