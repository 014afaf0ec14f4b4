"""Bilingual adaptation's claims on made-up figures: each can fail; and the runs behind them."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.papers.bilingual.claims import (
    both_gain,
    english_helps,
    first_stage_keeps,
    forgetting,
    rows_begin,
    token_tax,
    two_stages,
)
from feldspar.papers.bilingual.experiment import (
    LARGE,
    OPEN,
    PAPER,
    RECIPE,
    begun_trials,
    first_trials,
    once_trials,
    open_begun_trials,
    paper_trials,
    second_trials,
    stages,
)
from feldspar.papers.bilingual.figures import (
    ENGLISH,
    INITIALISATIONS,
    MIXTURES,
    NEW,
    NONE,
    TEXTS,
    bits_by_name,
    damage,
    figures_on_open_model,
    old_language,
)
from feldspar.papers.catalogue import paper_named
from feldspar.papers.kit.claims import Verdict
from feldspar.papers.kit.paper import Results, Scale
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.study.trials import Trial, TrialResult
from tests.papers.conftest import judged_by, stated

SMALL = Scale.SMALL
CLAIMS = stated(PAPER)
SEEDS = 5


def bits(*means: float) -> dict[str, list[float]]:
    """Return five seeds a thousandth apart of each text."""
    return {
        text: [mean + 0.001 * seed for seed in range(SEEDS)]
        for text, mean in zip(TEXTS, means, strict=True)
    }


BASE, FIRST = bits(4.0, 2.0, 2.5), bits(2.1, 2.005, 2.505)
WORDS = dict.fromkeys(ENGLISH, 2.5)


def test_what_holds_is_a_mechanism() -> None:
    words = {"old": {NEW: 11.7, **WORDS}, "new": {NEW: 2.5, **WORDS}}
    begun = {name: bits(3.0, 2.0, 2.5) for name in (NONE, *INITIALISATIONS)}
    begun["subword_mean"] = bits(2.5, 2.0, 2.5)
    area = {name: [4.0, 4.1, 4.0] for name in INITIALISATIONS} | {"subword_mean": [3.0, 3.1, 3.0]}
    second = {
        "1:1": bits(1.6, 1.9, 2.6),
        "9:1": bits(1.7, 2.0, 2.7),
        "1:0": bits(1.7, 2.6, 3.0),
    }
    claims = [
        token_tax(words, CLAIMS),
        rows_begin(begun, area, CLAIMS),
        first_stage_keeps(BASE, FIRST, CLAIMS),
        two_stages(way(2.3, 2.2), CLAIMS),
        both_gain(BASE, FIRST, second["1:1"], CLAIMS),
        forgetting(second, CLAIMS),
        english_helps(second, NEW, CLAIMS),
    ]
    assert [claim.verdict for claim in claims] == [Verdict.MECHANISM_SHOWN] * 7
    assert "ukrainian 11.70 to 2.50, django-docs 2.50 to 2.50" in claims[0].ours
    assert "English bits per byte 0.22% higher" in claims[2].ours
    assert "shakespeare, which is not mixed in, 4.00% higher" in claims[4].ours
    assert "is found in 80% of cases" in claims[3].ours


def way(peak: float, area: float) -> dict[str, dict[str, list[float]]]:
    """Return the damage of two stages beside that of a run at 2.5 at most and 2.4 on average."""
    noise = [0.001 * seed for seed in range(SEEDS)]
    pairs = {"two stages": (peak, area), "everything at once": (2.5, 2.4)}
    return {
        name: {"peak": [high + each for each in noise], "area": [mean + each for each in noise]}
        for name, (high, mean) in pairs.items()
    }


@pytest.mark.parametrize(("peak", "area"), [(2.5, 2.2), (2.3, 2.4), (2.6, 2.5)])
def test_two_stages_must_be_better_at_the_peak_and_on_average(peak: float, area: float) -> None:
    assert two_stages(way(peak, area), CLAIMS).borne_out is False


def test_each_claim_can_fail() -> None:
    english_changed = {"old": {NEW: 11.7, **WORDS}, "new": {NEW: 2.5, "django-docs": 2.4}}
    english_changed["new"]["shakespeare"] = 2.5
    begun = {name: bits(3.0, 2.0, 2.5) for name in (NONE, *INITIALISATIONS)}
    better = begun | {"subword_mean": bits(2.5, 2.0, 2.5)}
    area = {name: [4.0, 4.1, 4.0] for name in INITIALISATIONS}
    less = area | {"subword_mean": [3.0, 3.1, 3.0]}
    worse = {"1:1": bits(1.7, 2.1, 2.6), "9:1": bits(1.7, 2.2, 3.0), "1:0": bits(1.7, 2.6, 3.0)}
    claims = [
        token_tax(english_changed, CLAIMS),
        rows_begin(begun, less, CLAIMS),
        rows_begin(better, area, CLAIMS),
        first_stage_keeps(BASE, bits(2.1, 2.05, 2.6), CLAIMS),
        both_gain(BASE, FIRST, worse["1:1"], CLAIMS),
        forgetting(worse, CLAIMS),
        english_helps(worse, NEW, CLAIMS),
    ]
    assert all(claim.verdict is Verdict.NOT_BORNE_OUT for claim in claims)


def test_the_old_language_is_the_mean_of_its_texts() -> None:
    assert old_language({NEW: [9.0], "django-docs": [2.0], "shakespeare": [3.0]}) == [2.5]
    assert old_language({NEW: [9.0], "django-docs": [2.0]}) == [2.0]


def test_damage_is_read_from_the_first_hundred_steps(tmp_path: Path) -> None:
    run = {10: 3.0, 20: 2.6, 100: 2.2, 110: 9.0}
    found = damage([recorded(tmp_path / "run", run)])
    assert found["peak"] == [3.0] and found["area"] == [pytest.approx(2.6)]
    assert found["steps"] == [10, 20, 100] and found["curve"] == [3.0, 2.6, 2.2]
    before = recorded(tmp_path / "before", {10: 3.5})
    assert damage([recorded(tmp_path / "again", run)], [before])["peak"] == [3.5]


def recorded(folder: Path, curve: Mapping[int, float]) -> TrialResult:
    """Return a run that wrote these bits per byte of English, by step."""
    folder.mkdir()
    lines = [
        json.dumps(
            {"step": step, "tokens": step, "phase": "all"}
            | {f"validation/{text}/bits_per_byte": value for text in ENGLISH}
        )
        for step, value in curve.items()
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return TrialResult(Trial("run", ()), folder, 0.0, {}, 1, 1.0)


def made_up(scale: Scale, folder: Path) -> Results:
    """Return a result of each first stage, as the second needs it."""
    return {
        "first": [
            TrialResult(trial, folder / trial.name, 0.0, {}, 1, 1.0)
            for trial in first_trials(scale)
        ]
    }


def test_each_seed_goes_its_own_way(tmp_path: Path) -> None:
    results = made_up(SMALL, tmp_path)
    for trial in (*begun_trials(SMALL), *first_trials(SMALL), *once_trials(SMALL)):
        recipe = load_recipe(RECIPE, list(trial.overrides)).recipe
        assert path_of(recipe) == Path("runs/trunks") / str(recipe.seed % 3)
        assert (recipe.adapt is None) == (recipe.choose["vocabulary"] == "base")
    for trial in second_trials(results, SMALL):
        recipe = load_recipe(RECIPE, list(trial.overrides)).recipe
        assert path_of(recipe).parent == tmp_path and f"seed={recipe.seed}" in path_of(recipe).name
        assert recipe.adapt is None


def path_of(recipe: object) -> Path:
    """Return the folder from which a run starts."""
    return Path(getattr(getattr(recipe, "start_from"), "path"))  # noqa: B009 - of any kind


def test_mixtures_read_the_same_new_text_in_as_many_steps() -> None:
    read, at_once = [], plan_of(once_trials(SMALL)[0])
    for trial in second_trials({}, SMALL)[::SEEDS]:
        plan = plan_of(trial)
        (phase,) = plan.timeline.phases
        share = load_recipe(RECIPE, list(trial.overrides)).recipe.phases[0].mixture[NEW]
        read.append(round(plan.timeline.length * share))
        assert phase.steps == 100
    assert len(read) == len(MIXTURES) and set(read) == {9 * 128 * 100}
    assert at_once.timeline == plan_of(second_trials({}, SMALL)[0]).timeline


def plan_of(trial: Trial):
    """Plan a run on the trunk."""
    return plan_recipe(load_recipe(RECIPE, list(trial.overrides)).recipe)


@pytest.mark.parametrize("name", [RECIPE, OPEN])
def test_the_measuring_step_moves_nothing(name: str) -> None:
    trial = begun_trials(SMALL)[0] if name == RECIPE else open_begun_trials()[0]
    (phase,) = plan_recipe(load_recipe(name, list(trial.overrides)).recipe).timeline.phases
    assert phase.steps == 1 and phase.learning_rate.at(phase.end_position) == 0


def test_only_the_papers_own_language_reproduces() -> None:
    metrics = {"validation/arabic/bits_per_byte": 1.0, "validation/english/bits_per_byte": 1.0}
    results = {"second": [TrialResult(t, Path(), 1.0, metrics, 1, 1.0) for t in paper_trials()]}
    found = judged_by(PAPER, results, Scale.PAPER)
    names = ["english-helps", "benchmarks", "other-languages"]
    assert [claim.name for claim in found.claims] == names
    [stage] = stages(Scale.PAPER)
    assert stage.recipe == LARGE
    helped = {"1:1": {"arabic": [1.5]}, "9:1": {"arabic": [1.6]}}
    claim = english_helps(helped, "arabic", stated(PAPER, at_paper_scale=True))
    assert claim.verdict is Verdict.REPRODUCED


def test_seeds_of_a_name_are_together() -> None:
    runs = [
        TrialResult(t, Path(), 0.0, {f"validation/{NEW}/bits_per_byte": float(i)}, 1, 1.0)
        for i, t in enumerate(second_trials({}, SMALL))
    ]
    found = bits_by_name(runs, MIXTURES, (NEW,))
    assert found["9:1"][NEW] == [5.0, 6.0, 7.0, 8.0, 9.0]


@pytest.mark.parametrize(
    ("scale", "count"), [(Scale.QUICK, 1 + 7), (SMALL, 3 + 35), (Scale.OPEN, 25 + 12)]
)
def test_a_dry_run_needs_no_results(scale: Scale, count: int) -> None:
    names = [trial.name for stage in stages(scale) for trial in stage.trials({})]
    assert len(names) == count


def test_an_open_model_is_judged_by_what_is_measured_on_it(tmp_path: Path) -> None:
    results: dict[str, list[TrialResult]] = {}
    for stage in stages(Scale.OPEN):
        results[stage.name] = []
        for place, trial in enumerate(stage.trials({})):
            assert load_recipe(OPEN, list(trial.overrides)).recipe.start_from is not None
            folder = tmp_path / stage.name / str(place)
            folder.mkdir(parents=True)
            line = json.dumps({"step": 1, "tokens": 1, "train/loss": 3.0 + place / 10})
            (folder / "metrics.jsonl").write_text(line + "\n")
            metrics = {f"validation/{text}/bits_per_byte": 1 + place / 100 for text in TEXTS}
            results[stage.name].append(TrialResult(trial, folder, 0.0, metrics, 1, 1.0))
    figures = {"words": {name: {NEW: 5.0, **WORDS} for name in ("old", "new")}}
    figures |= figures_on_open_model(results, figures["words"])
    assert figures["begun"]["random"][NEW] == [1 + place / 100 for place in range(10, 15)]
    assert figures["area"]["random"] == [pytest.approx(3.3 + seed / 10) for seed in range(3)]
    found = PAPER.findings(figures, Scale.OPEN)
    judged = [claim.name for claim in found.claims if claim.borne_out is not None]
    assert judged == ["token-tax", "rows", "first-stage"]


def test_only_one_paper_has_an_open_model() -> None:
    assert [data.recipe for data in PAPER.data_of(Scale.OPEN)] == [OPEN, OPEN]
    with pytest.raises(UserError, match="no experiment on an open model"):
        paper_named("btlm").data_of(Scale.OPEN)
