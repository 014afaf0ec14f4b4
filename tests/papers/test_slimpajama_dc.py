"""SlimPajama-DC's claims about mixtures on made-up figures: each can fail; and its runs."""

from collections.abc import Mapping
from pathlib import Path

from feldspar.papers.kit.paper import Scale, values_of
from feldspar.papers.slimpajama_dc.experiment import (
    DUPLICATES,
    MIXTURE,
    PAPER,
    diversity_claim,
    grouped,
    loss_claim,
    mixture_trials,
    mixtures,
    paper_trials,
    scope_trials,
    training_losses,
    validation_bits,
)
from feldspar.papers.slimpajama_dc.unseen import (
    FROM_THE_TRUNK,
    PIECE_CHARACTERS,
    PIECES,
    pieces,
)
from feldspar.recipe.load import load_recipe
from feldspar.study.trials import TrialResult
from tests.papers.conftest import judged_by, stated

CLAIMS = stated(PAPER)
SOURCES = ("docs", "code")


def bits(means: Mapping[str, float], seeds: int = 3) -> dict[str, dict[str, list[float]]]:
    """The same figure for each source, a little apart from seed to seed."""
    return {
        name: {source: [value + 0.001 * seed for seed in range(seeds)] for source in SOURCES}
        for name, value in means.items()
    }


def test_the_most_diverse_mixture_has_to_beat_all_others() -> None:
    losses = {"docs": 1.0, "three": 2.0, "all": 3.0}
    found = bits({"docs": 2.4, "three": 2.2, "all": 2.0})
    xz = {"xz": {"docs": 2.0, "code": 3.0}}
    diverse, misleads = diversity_claim(found, xz, CLAIMS), loss_claim(found, losses, CLAIMS)
    assert diverse.borne_out and misleads.borne_out
    assert diverse.ours.startswith("all 2.0010, three 2.2010, docs 2.4010")
    assert "all than docs 16.66% lower" in diverse.ours and "is found in 80%" in diverse.ours
    assert diverse.short.startswith("all against the best other mixture (three): 9.09% lower")
    assert diverse.ours.endswith("; without a model: xz 2.5000")
    found = bits({"docs": 2.4, "three": 2.0, "all": 2.0})
    diverse = diversity_claim(found, {}, CLAIMS)
    misleads = loss_claim(found, losses | {"three": 0.5}, CLAIMS)
    assert diverse.borne_out is False and "three (0.00%" in diverse.reason
    assert misleads.borne_out is False, "three is the best, and has the lowest training loss"
    level = bits({"docs": 2.001, "three": 2.2, "all": 2.0})
    assert loss_claim(level, losses, CLAIMS).borne_out is False, "docs is level with the best"


def test_seeds_are_grouped_and_sources_read_from_metrics() -> None:
    trials = mixture_trials(Scale.QUICK)
    results = [
        TrialResult(
            trial,
            Path(),
            0.0,
            {
                "train/loss": float(number),
                "validation/docs/bits_per_byte": 1.0 + number,
                "validation/docs/loss": 9.0,
                "validation/bits_per_byte": 9.0,
            },
            1,
            1.0,
        )
        for number, trial in enumerate(trials)
    ]
    found = grouped(results, MIXTURE, validation_bits(results))
    assert found == {name: {"docs": [1.0 + i]} for i, name in enumerate(mixtures())}
    assert training_losses(results) == {name: float(i) for i, name in enumerate(mixtures())}


def test_findings_at_the_papers_scale_need_no_text() -> None:
    results = [
        TrialResult(
            trial,
            Path(),
            0.0,
            {"train/loss": 2.0 + i, **{f"validation/{s}/bits_per_byte": 1.0 for s in SOURCES}},
            1,
            1.0,
        )
        for i, trial in enumerate(paper_trials())
    ]
    found = judged_by(PAPER, {"mixtures": results}, Scale.PAPER)
    verdicts = {claim.name: claim.borne_out for claim in found.claims}
    assert verdicts == {
        "diversity": False,
        "loss-misleads": False,
        "benchmarks": None,
        "progressive-weight-decay": None,
    }
    assert all(claim.cost for claim in found.claims)
    figures = PAPER.measure({"mixtures": results}, Scale.PAPER)
    assert list(figures["mixtures"]) == [f"dc-{number}" for number in range(1, 7)]
    assert found.figure is not None and "1.000" in found.figure.svg


def test_all_runs_read_the_same_number_of_tokens() -> None:
    assert [values_of(trial)["seed"] for trial in mixture_trials(Scale.SMALL)[:5]] == [
        0,
        1,
        2,
        3,
        4,
    ]
    for trials in (scope_trials(Scale.SMALL), mixture_trials(Scale.SMALL)):
        assert not any("length" in item for trial in trials for item in trial.overrides)
    assert len({trial.name for trial in scope_trials(Scale.SMALL)}) == 9
    assert not any(
        "mixture" in item for trial in scope_trials(Scale.SMALL) for item in trial.overrides
    )
    scopes = [values_of(trial)[DUPLICATES] for trial in scope_trials(Scale.QUICK)]
    assert scopes == ["none", "local", "global"]


def test_unseen_text_is_taken_evenly_and_no_more_than_there_is() -> None:
    text = "".join(chr(97 + place // 10_000) for place in range(260_000))
    found = pieces(text)
    assert len(found) == PIECES and all(len(each) == PIECE_CHARACTERS for each in found)
    assert (found[0][0], found[-1][-1]) == ("a", "z") and found == sorted(found)
    assert "".join(pieces(text[:9_000])) == text[:9_000]


def test_no_mixture_has_the_sources_that_it_is_scored_on() -> None:
    recipe = load_recipe("slimpajama-dc/small").recipe
    assert recipe.corpus is not None
    assert set(FROM_THE_TRUNK.values()) <= set(recipe.corpus.sources)
    for mixture in mixtures():
        phase = load_recipe("slimpajama-dc/small", [f"{MIXTURE}={mixture}"]).recipe.phases[0]
        assert phase.mixture is not None
        assert not set(FROM_THE_TRUNK.values()) & set(phase.mixture), mixture
