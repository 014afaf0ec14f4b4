"""MediSwift's claims on made-up figures: each can fail, none holds where nothing was learned."""

import json
from pathlib import Path

import pytest

from feldspar.papers.kit.claims import Verdict
from feldspar.papers.kit.paper import Scale, values_of
from feldspar.papers.mediswift.arms import (
    ARM,
    ARMS,
    MASKS_KEPT,
    NOT_PRETRAINED,
    PRETRAINED,
    PRETRAINED_STAGE,
    PRETRAINING_RATES,
    RATES,
    SEEDS,
    TUNING,
    TUNING_RATES,
    arm_stages,
    arm_trials,
    more_pretraining_rates,
    pretraining_rates,
    pretraining_trials,
    runs_by_arm,
    tuning_rates,
)
from feldspar.papers.mediswift.experiment import PAPER, flops_claim, flops_ratio
from feldspar.papers.mediswift.label_claims import (
    arm_table,
    chosen,
    dense_tuning_claim,
    level_claim,
    rate_table,
    small_dense_claim,
)
from feldspar.papers.mediswift.labels import MOST_FREQUENT, WORDS_BY_PLACE, by_place, marked
from feldspar.papers.mediswift.rates import RATE, TUNING_SEED, best_rate
from feldspar.papers.mediswift.time_arms import DENSE, HALF, SMALL_DENSE, SPARSE
from feldspar.study.trials import TrialResult
from feldspar.tokens.sequences.pairs import PairText
from tests.papers.conftest import finished, stated

CLAIMS = stated(PAPER)
ACCURACIES = {
    DENSE: [0.80, 0.81, 0.82],
    HALF: [0.80, 0.81, 0.81],
    SPARSE: [0.79, 0.80, 0.81],
    SMALL_DENSE: [0.7, 0.71, 0.72],
    MASKS_KEPT: [0.75, 0.76, 0.78],
    NOT_PRETRAINED: [0.73, 0.74, 0.75],
}
WITHOUT = {MOST_FREQUENT: 0.5, "bag of words": 0.5, WORDS_BY_PLACE: 0.74}
BITS = {SPARSE: [2.0, 2.01, 2.02], SMALL_DENSE: [2.1, 2.11, 2.12]}


def test_level_accuracies_and_freed_weights() -> None:
    level = level_claim(ACCURACIES, WITHOUT, CLAIMS)
    freed = dense_tuning_claim(ACCURACIES, CLAIMS)
    assert level.verdict is freed.verdict is Verdict.MECHANISM_SHOWN
    assert "75% -1.0 points (+- 0.0)" in level.ours and "dense 81.0% (+- 2.5%)" in level.ours
    assert "dense pre-training adds +7.0 points" in level.ours
    assert (
        "+3.7 points (+- 1.4) (a true difference of 1.8 points is found in 80% of cases)"
        in freed.ours
    )
    assert "bag of words 50.0%" in level.ours and "No model is needed" not in level.reason
    for claim in (level, freed, small_dense_claim(BITS, ACCURACIES, CLAIMS)):
        assert "each arm with its own learning rates" in claim.ours
    easy = level_claim(ACCURACIES, WITHOUT | {WORDS_BY_PLACE: 0.8}, CLAIMS)
    assert "No model is needed for this task" in easy.reason


def test_a_mean_of_two_standard_errors_shows_nothing() -> None:
    """Differences of 1, 1 and 4 of 960 answers have a mean of two standard errors."""
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
        ({SPARSE: [0.77, 0.78, 0.78]}, 0.5, [False, False]),
        ({HALF: [0.6, 0.6, 0.6]}, 0.5, [False, True]),
        ({MASKS_KEPT: [0.79, 0.80, 0.81]}, 0.5, [True, False]),
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
    assert small_dense_claim(BITS, ACCURACIES, CLAIMS).borne_out
    level = BITS | {SMALL_DENSE: BITS[SPARSE]}
    assert not small_dense_claim(level, ACCURACIES, CLAIMS).borne_out


def test_the_ledger_gives_the_printed_ratios() -> None:
    ratios = {size: flops_ratio(size) for size in ("med", "large", "xl")}
    claim = flops_claim(ratios, CLAIMS)
    assert claim.verdict is Verdict.MECHANISM_SHOWN and "xl 2.535" in claim.ours
    assert not flops_claim(ratios | {"med": 2.0}, CLAIMS).borne_out


def test_a_rate_has_the_neighbour_of_the_better_one_tried() -> None:
    search = TUNING_RATES
    assert search.first == (1e-3, 2e-3) and search.next([]) == 4e-3
    assert search.next([(1e-3, 0.2), (2e-3, 0.3)]) == 5e-4
    assert search.next([(1e-3, 0.3), (2e-3, 0.2)]) == 4e-3
    curve = [(1e-3, 0.2), (2e-3, 0.3), (5e-4, 0.25)]
    assert best_rate(curve) == 1e-3 and chosen(curve, search) == "0.001"
    assert chosen([*curve[:2], (5e-4, 0.1)], search) == "0.0005 (edge)"


def rates_of_pretraining(wanted: float) -> dict[str, list[TrialResult]]:
    """The stages of rates, in which ``wanted`` is best for every arm."""

    def loss(values: dict[str, float]) -> float:
        return abs(values[RATE] - wanted)

    first = {RATES[0]: finished(pretraining_rates(Scale.SMALL), loss)}
    return first | {RATES[1]: finished(more_pretraining_rates(first, Scale.SMALL), loss)}


def test_arms_start_from_their_own_pre_trained_runs_at_the_best_rates() -> None:
    results = rates_of_pretraining(4e-3)
    pretrained = pretraining_trials(results, Scale.SMALL)
    assert {values_of(trial)[RATE] for trial in pretrained} == {4e-3}
    results[PRETRAINED_STAGE] = finished(pretrained, lambda values: values["seed"])
    for name, own in runs_by_arm(results[PRETRAINED_STAGE], PRETRAINED).items():
        assert [run.score for run in own] == list(range(SEEDS[Scale.SMALL]))
        assert all(values_of(run.trial)[ARM] == PRETRAINED[name] for run in own)
    tuned = tuning_rates(results, Scale.SMALL)
    starts = {values_of(trial)[ARM]: values_of(trial).get("start_from.path") for trial in tuned}
    assert (
        starts["masks-kept"]
        == starts["75%"]
        == f"trials/arm=75,learning_rate=0.004,seed={TUNING_SEED}"
    )
    assert starts["not-pretrained"] is None and len(tuned) == 2 * len(ARMS)
    results[TUNING[0]] = []
    arms = arm_trials(results, Scale.SMALL)
    assert [values_of(trial)["seed"] for trial in arms[:: len(ARMS)]] == [0, 1, 2, 3, 4]
    [dense] = [trial for trial in arms if trial.name == "arm=dense,learning_rate=0.001,seed=3"]
    assert values_of(dense)["start_from.path"] == "trials/arm=dense,learning_rate=0.004,seed=3"


def test_a_plan_has_as_many_runs_as_the_experiment() -> None:
    counts = [len(stage.trials({})) for stage in arm_stages(Scale.SMALL)]
    assert counts == [8, 4, 20, 12, 6, 30]


def test_tables_show_rates_and_rules_without_a_model() -> None:
    begun = {arm: [(8e-3, 2.0), (16e-3, 2.1), (4e-3, 2.2)] for arm in PRETRAINED}
    ended = {arm: [(1e-3, 0.2), (2e-3, 0.3), (5e-4, 0.1)] for arm in ARMS}
    bits = {arm: [2.0] for arm in PRETRAINED}
    table = arm_table(bits, ACCURACIES, WITHOUT, begun, ended)
    assert table.rows[0][1:3] == ["2.0000", "81.0% (+- 2.5%)"] and table.rows[0][3] == ""
    assert table.rows[5][0] == NOT_PRETRAINED and table.rows[5][1] == table.rows[5][4] == ""
    assert table.rows[0][4:] == ["0.008", "0.0005 (edge)"]
    assert table.rows[-1][:3] == [WORDS_BY_PLACE, "", "74.0%"]
    assert len(table.rows) == len(ARMS) + 3
    assert rate_table(begun, PRETRAINING_RATES, "bits").rows[0] == [
        DENSE,
        "2.2000",
        "2.0000",
        "2.1000",
        "",
    ]


def test_words_of_each_name_tell_the_direction() -> None:
    def pair(statement: str, label: str) -> PairText:
        return PairText(f"{statement}\n", label, (label,), "here")

    learned = [
        pair("Small hand is a kind of Hand.", "yes"),
        pair("Hand is a kind of Small hand.", "no"),
    ]
    asked = [
        pair("Small foot is a kind of Foot.", "yes"),
        pair("Foot is a kind of Small foot.", "no"),
    ]
    assert marked(learned[0].source) == "first_small first_hand second_hand"
    assert by_place(learned, asked) == 1.0


def test_the_shipped_template_reads_what_an_ontology_writes(tmp_path: Path) -> None:
    from feldspar.corpus.ontology import BETWEEN_NAMES, kind_pairs, read_terms
    from feldspar.recipe.load import load_recipe
    from feldspar.tokens.sequences.pairs import read_pairs
    from tests.corpus.test_ontology import OBO

    terms = read_terms(OBO, "x.obo")
    records = [own for part in ("train", "validation", "test") for own in kind_pairs(terms, part)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(own) + "\n" for own in records))
    pairs = load_recipe("mediswift/kinds").recipe.phases[0].pairs
    assert pairs is not None
    found = read_pairs(path, pairs.template)
    assert {own.labels for own in found} == {("yes",), ("no",)}
    assert all(BETWEEN_NAMES in own.source for own in found)
