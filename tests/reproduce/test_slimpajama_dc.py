"""SlimPajama-DC's claims on made-up figures: each of them can fail; and what is measured on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.errors import UserError
from feldspar.corpus.build import build_corpus
from feldspar.corpus.store import documents
from feldspar.recipe import load_recipe
from feldspar.reproduce.claims import Verdict
from feldspar.reproduce.common_held_out import bits_per_byte, common_held_out
from feldspar.reproduce.paper import Scale, values_of
from feldspar.reproduce.slimpajama_dc import (
    DUPLICATES,
    MIXTURE,
    data_of,
    findings,
    grouped,
    mixture_claims,
    mixture_trials,
    mixtures,
    paper_trials,
    scope_claims,
    scope_trials,
    training_losses,
    validation_bits,
)
from feldspar.study.trials import TrialResult
from feldspar.train import train
from tests.corpus.conftest import corpus_settings, prose
from tests.train.conftest import recipe_file, shards_folder

__all__ = ["recipe_file", "shards_folder"]

SOURCES = ("docs", "code")


def bits(means: Mapping[str, float], seeds: int = 3) -> dict[str, dict[str, list[float]]]:
    """The same figure for each source, a little apart from seed to seed."""
    return {
        name: {source: [value + 0.001 * seed for seed in range(seeds)] for source in SOURCES}
        for name, value in means.items()
    }


@pytest.mark.parametrize(
    ("figures", "held"),
    [
        ({"none": 2.1, "local": 2.05, "global": 2.0}, [True, True]),
        ({"none": 2.1, "local": 2.0, "global": 2.0}, [True, None]),
        ({"none": 1.9, "local": 2.004, "global": 2.0}, [False, False]),
    ],
)
def test_removal_has_to_help_by_more_than_noise(
    figures: dict[str, float], held: list[bool | None]
) -> None:
    found = scope_claims(bits(figures), "cost")
    assert [claim.borne_out for claim in found] == held
    for claim in found:
        better = Verdict.MECHANISM_SHOWN if claim.borne_out else Verdict.NEEDS_SCALE
        assert claim.verdict is better, "another quantity than the paper's is never reproduced"


def test_the_most_diverse_mixture_has_to_beat_all_others() -> None:
    losses = {"docs": 1.0, "three": 2.0, "all": 3.0}
    diverse, misleads = mixture_claims(bits({"docs": 2.4, "three": 2.2, "all": 2.0}), losses, "c")
    assert diverse.borne_out and misleads.borne_out
    assert diverse.ours.startswith("all 2.0010, three 2.2010, docs 2.4010")
    diverse, misleads = mixture_claims(
        bits({"docs": 2.4, "three": 2.0, "all": 2.0}), losses | {"three": 0.5}, "cost"
    )
    assert diverse.borne_out is False and "three (0.00%" in diverse.reason
    assert misleads.borne_out is False, "three is the best, and has the lowest training loss"


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
    found = findings({"mixtures": results}, Scale.PAPER)
    verdicts = {claim.name: claim.borne_out for claim in found.claims}
    assert verdicts == {
        "diversity": False,
        "loss-misleads": False,
        "benchmarks": None,
        "progressive-weight-decay": None,
    }
    assert all(claim.cost for claim in found.claims)
    assert list(found.figures["mixtures"]) == [f"dc-{number}" for number in range(1, 7)]
    assert "1.000" in found.figure.svg


@pytest.mark.slow
def test_bits_per_byte_of_a_run_by_source(recipe_file: Path, tmp_path: Path) -> None:
    train(load_recipe(str(recipe_file)), tmp_path / "run")
    texts = {"prose": ["the river runs over old stone"], "noise": ["\u0416" * 40]}
    (found,) = bits_per_byte([tmp_path / "run"], texts)
    assert set(found) == set(texts)
    assert 0 < found["prose"] < found["noise"], "it was trained on such prose"


def test_all_runs_read_the_same_number_of_tokens() -> None:
    for trials in (scope_trials(Scale.SMALL), mixture_trials(Scale.SMALL)):
        assert not any("length" in item for trial in trials for item in trial.overrides)
    assert len({trial.name for trial in scope_trials(Scale.SMALL)}) == 9
    assert not any(
        "mixture" in item for trial in scope_trials(Scale.SMALL) for item in trial.overrides
    )
    scopes = [values_of(trial)[DUPLICATES] for trial in scope_trials(Scale.QUICK)]
    assert scopes == ["none", "local", "global"]


def test_each_scope_has_its_own_folders() -> None:
    assert data_of("local").overrides[1] == "corpus.deduplicate={scope: local}"
    assert len({data_of(scope).overrides[-1] for scope in ("none", "local", "global")}) == 3


def corpus(folder: Path, rows: list[dict[str, str]], **more: Any) -> Path:
    path = folder.with_name("rows.jsonl")  # the same for all: places name documents
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = corpus_settings(
        folder,
        {"s": {"reader": "jsonl", "path": str(path), "group_field": "group"}},
        **{"split": {"validation": 0.4, "test": 0}, **more},
    )
    build_corpus(settings, folder)
    return folder


def test_held_out_text_has_no_copy_in_any_train(tmp_path: Path) -> None:
    rows = [{"id": f"d{i}", "group": f"g{i}", "text": prose(i)} for i in range(40)]
    # Copies under groups of their own: without removal some fall on the other side.
    rows += [{"id": f"c{i}", "group": f"h{i}", "text": prose(i)} for i in range(40)]
    clean = corpus(tmp_path / "clean", rows)
    split = {"validation": 0.4, "test": 0, "decontamination": None}
    dirty = corpus(tmp_path / "dirty", rows, deduplicate=None, split=split)
    everything = set(common_held_out(clean, [], 10**9)["s"])
    common = set(common_held_out(clean, [dirty], 10**9)["s"])
    assert common < everything
    trained = {document.text for document in documents(dirty, "train", "s")}
    assert not common & trained
    assert everything & trained, "else there was nothing to leave out"
    assert common == everything - trained
    assert len(common_held_out(clean, [dirty], 1)["s"]) == 1
    whole = corpus(tmp_path / "whole", rows, split={"validation": 0, "test": 0}, deduplicate=None)
    with pytest.raises(UserError, match="free of copies"):
        common_held_out(clean, [whole], 1)
