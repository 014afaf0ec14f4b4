"""Bilingual adaptation's claims on made-up figures: each can fail; and the runs behind them."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.papers.bilingual.experiment import (
    BASE,
    INITIALISATIONS,
    MIXTURES,
    NONE,
    OPEN,
    PAPER,
    RECIPE,
    base_trials,
    begun_seeds,
    begun_trials,
    bits_of,
    both_gain,
    english_helps,
    first_stage_keeps,
    first_trials,
    forgetting,
    once_trials,
    paper_trials,
    rows_begin,
    second_trials,
    stages,
    token_tax,
    two_stages,
)
from feldspar.papers.catalogue import paper_named
from feldspar.papers.kit.claims import Verdict
from feldspar.papers.kit.paper import Scale
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.study.trials import TrialResult
from tests.papers.conftest import judged_by, stated

SMALL = Scale.SMALL
CLAIMS = stated(PAPER)


def bits(means: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, list[float]]]:
    """Three seeds a thousandth apart, of cipher and English."""
    return {
        name: {
            language: [mean + 0.001 * seed for seed in range(3)]
            for language, mean in zip(("cipher", "english"), pair, strict=True)
        }
        for name, pair in means.items()
    }


ROWS = {"subword_mean": (2.0, 2.0), "random": (2.2, 2.0), "mean": (2.3, 2.0)}
BEGUN = bits({NONE: (2.5, 2.0), **ROWS, "normal_matched": (2.4, 2.0)})
FIRST = bits(dict.fromkeys(INITIALISATIONS, (1.8, 2.01)))
SECOND = bits({"1:1": (1.6, 1.95), "9:1": (1.55, 2.0), "1:0": (1.5, 2.6)})


def test_what_holds_is_a_mechanism_at_small_scale() -> None:
    words = {
        "old": {"cipher": 7.5, "english": 3.2},
        "new": {"cipher": 2.8, "english": 3.2},
    }
    once = bits({"once": (1.6, 2.05)})["once"]
    claims = [
        token_tax(words, "cipher", CLAIMS),
        rows_begin(BEGUN, FIRST, "cipher", CLAIMS),
        first_stage_keeps(BEGUN, FIRST, CLAIMS),
        two_stages(SECOND, once, CLAIMS),
        both_gain(BEGUN, FIRST, SECOND, "cipher", CLAIMS),
        forgetting(SECOND, CLAIMS),
    ]
    assert [claim.verdict for claim in claims] == [Verdict.MECHANISM_SHOWN] * 6
    assert "cipher 7.50 to 2.80 tokens a word, English 3.20 to 3.20" in claims[0].ours
    assert "English bits per byte 0.50% higher" in claims[2].ours


def test_each_claim_can_fail() -> None:
    resegmented = {
        "old": {"cipher": 7.5, "english": 3.2},
        "new": {"cipher": 2.8, "english": 3.1},
    }
    alike = bits({NONE: (2.5, 2.0), **dict.fromkeys(INITIALISATIONS, (2.0, 2.0))})
    lost = bits(dict.fromkeys(INITIALISATIONS, (1.8, 2.05)))
    worse = bits({"1:1": (1.6, 2.1), "9:1": (1.6, 2.6), "1:0": (1.5, 2.6)})
    once = bits({"once": (1.6, 2.1)})["once"]
    claims = [
        token_tax(resegmented, "cipher", CLAIMS),
        rows_begin(alike, FIRST, "cipher", CLAIMS),
        first_stage_keeps(BEGUN, lost, CLAIMS),
        two_stages(worse, once, CLAIMS),
        both_gain(BEGUN, FIRST, worse, "cipher", CLAIMS),
        forgetting(worse, CLAIMS),
        english_helps(worse, "cipher", CLAIMS),
    ]
    assert [claim.borne_out for claim in claims] == [False] * 7
    assert all(claim.verdict is Verdict.NOT_BORNE_OUT for claim in claims)


def test_only_the_paper_s_own_language_reproduces() -> None:
    helped = bits({"1:1": (1.5, 2.0), "9:1": (1.6, 2.0)})
    assert english_helps(helped, "cipher", CLAIMS).verdict is Verdict.MECHANISM_SHOWN
    arabic = {name: {"arabic": by["cipher"]} for name, by in helped.items()}
    assert (
        english_helps(arabic, "arabic", stated(PAPER, at_paper_scale=True)).verdict
        is Verdict.REPRODUCED
    )


def results_of(stage: str, folder: Path) -> dict[str, list[TrialResult]]:
    trials = base_trials(SMALL) if stage == "base" else first_trials({}, SMALL)
    return {stage: [TrialResult(t, folder / stage / t.name, 0.0, {}, 1, 1.0) for t in trials]}


def test_each_seed_goes_its_own_way(tmp_path: Path) -> None:
    results = results_of("base", tmp_path) | results_of("first", tmp_path)
    for make in (begun_trials, first_trials, once_trials, second_trials):
        for trial in make(results, SMALL):
            recipe = load_recipe(RECIPE, list(trial.overrides)).recipe
            path = Path(getattr(recipe.start_from, "path"))  # noqa: B009 - a run
            assert f"seed={recipe.seed}" in path.name
            second = make is second_trials
            assert path.parent.name == ("first" if second else "base")
            assert not second or "subword_mean" in path.name
            assert (recipe.adapt is None) == (second or recipe.choose["vocabulary"] == "base")
            assert plan_recipe(recipe).timeline.steps in (1, 160, 200, 360)
    mixtures = [load_recipe(RECIPE, list(t.overrides)).recipe for t in second_trials({}, SMALL)]
    shares = [r.phases[0].mixture["cipher"] for r in mixtures[::3]]
    assert shares == list(MIXTURES.values())
    assert load_recipe(BASE, list(base_trials(SMALL)[1].overrides)).recipe.seed == 1


def test_the_measuring_step_moves_nothing() -> None:
    trial = begun_trials({}, SMALL)[0]
    planned = plan_recipe(load_recipe(RECIPE, list(trial.overrides)).recipe)
    (phase,) = planned.timeline.phases
    assert phase.steps == 1 and phase.learning_rate.at(phase.end_position) == 0


def test_findings_at_the_papers_scale() -> None:
    metrics = {"validation/arabic/bits_per_byte": 1.0, "validation/english/bits_per_byte": 1.0}
    results = [TrialResult(t, Path(), 1.0, metrics, 1, 1.0) for t in paper_trials()]
    found = judged_by(PAPER, {"second": results}, Scale.PAPER)
    assert [claim.name for claim in found.claims] == [
        "english-helps",
        "benchmarks",
        "other-languages",
    ]
    assert json.dumps(PAPER.measure({"second": results}, Scale.PAPER))
    assert [stage.name for stage in stages(Scale.PAPER)] == ["second"]


def test_seeds_of_a_name_are_together() -> None:
    runs = [
        TrialResult(t, Path(), 0.0, {"validation/cipher/bits_per_byte": float(i)}, 1, 1.0)
        for i, t in enumerate(second_trials({}, SMALL))
    ]
    found = bits_of(runs, tuple(MIXTURES), ("cipher",))
    assert found["9:1"]["cipher"] == [3.0, 4.0, 5.0]


@pytest.mark.parametrize("scale", [Scale.QUICK, SMALL])
def test_a_dry_run_needs_no_results(scale: Scale) -> None:
    names = [trial.name for stage in stages(scale) for trial in stage.trials({})]
    assert len(names) == (14 if scale is Scale.QUICK else 42)


def test_an_open_model_is_measured_with_each_seed_before_training(tmp_path: Path) -> None:
    trials = {stage.name: stage.trials({}) for stage in stages(Scale.OPEN)}
    assert {name: len(own) for name, own in trials.items()} == {
        "begun": 25,
        "first": 3,
        "second": 9,
    }
    for trial in trials["begun"]:
        recipe = load_recipe(OPEN, list(trial.overrides)).recipe
        assert getattr(recipe.start_from, "base") == "smollm2-135m"  # noqa: B009 - a folder
        assert plan_recipe(recipe).timeline.steps == 1
    results = {
        stage: [
            TrialResult(t, tmp_path, 0.0, metrics_of(place), 1, 1.0) for place, t in enumerate(own)
        ]
        for stage, own in trials.items()
    }
    begun, russian = iter(results["begun"]), "validation/russian/bits_per_byte"
    read = {
        name: [next(begun).metrics[russian] for _ in range(begun_seeds(Scale.OPEN))]
        for name in (NONE, *INITIALISATIONS)
    }
    assert read["random"] == [1 + place / 100 for place in range(10, 15)]
    rows = {name: {"russian": values} for name, values in read.items()}
    claim = rows_begin(rows, {}, "russian", CLAIMS)
    assert claim.borne_out and "of random" in claim.ours and "after stage 1" not in claim.ours


def metrics_of(place: int) -> dict[str, float]:
    bits = 1 + place / 100
    return {f"validation/{name}/bits_per_byte": bits for name in ("russian", "english")}


def test_only_one_paper_has_an_open_model() -> None:
    assert [data.recipe for data in PAPER.data_of(Scale.OPEN)] == [OPEN, OPEN]
    with pytest.raises(UserError, match="no experiment on an open model"):
        paper_named("btlm").data_of(Scale.OPEN)
