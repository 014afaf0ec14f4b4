"""Stages are ready, to be built, missing or refused before anything is done."""

from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.core.artifact import finish_artifact
from feldspar.corpus.ontology import wanted_ontology
from feldspar.prepare.build import build_missing
from feldspar.prepare.stages import State, stages_of
from feldspar.recipe.load import load_recipe

READY, TO_BUILD, NOT_NEEDED, MISSING, REFUSED = (
    State.READY,
    State.TO_BUILD,
    State.NOT_NEEDED,
    State.MISSING,
    State.REFUSED,
)


def states(recipe: Path | str, *overrides: str) -> dict[str, State]:
    """The state of each stage by its name."""
    return {stage.name: stage.state for stage in stages_of(load_recipe(str(recipe), [*overrides]))}


def stage(recipe: Path | str, name: str, *overrides: str) -> str:
    """The lines of one stage as one."""
    found = {stage.name: stage for stage in stages_of(load_recipe(str(recipe), [*overrides]))}
    return "\n".join(found[name].lines())


def test_what_a_fresh_recipe_needs_is_built_once(fresh: Path) -> None:
    everything = ("documents", "tokenizer", "shards")
    assert states(fresh) == dict.fromkeys(everything, TO_BUILD)
    build_missing(load_recipe(str(fresh)))
    assert states(fresh) == dict.fromkeys(everything, READY)
    assert states(fresh, "seed=5", "phases.0.length=9 steps") == dict.fromkeys(everything, READY)


def test_documents_are_not_needed_once_their_tokens_are_there(fresh: Path) -> None:
    build_missing(load_recipe(str(fresh)))
    (fresh.parent / "documents").rename(fresh.parent / "elsewhere")
    assert states(fresh) == {"documents": NOT_NEEDED, "tokenizer": READY, "shards": READY}


def test_text_that_is_not_there_is_named(fresh: Path) -> None:
    Path("notes.jsonl").rename("other.jsonl")
    assert states(fresh) == {"documents": MISSING, "tokenizer": TO_BUILD, "shards": MISSING}
    told = stage(fresh, "documents")
    assert f"corpus.sources.notes.path: {fresh.parent / 'notes.jsonl'} does not exist" in told
    assert "do: put the text of notes there" in told


def test_folders_of_other_settings_are_refused_with_what_differs(fresh: Path) -> None:
    build_missing(load_recipe(str(fresh)))
    told = stage(fresh, "documents", "corpus.clean.short=7")
    assert "was built with other settings: clean.short: 0 -> 7" in told
    replacing = f"feldspar corpus build {fresh} corpus.clean.short=7 --overwrite"
    assert replacing in told
    assert states(fresh, "corpus.clean.short=7")["shards"] is REFUSED
    told = stage(fresh, "shards", "tokenizer.vocab_size=301")
    assert "was built with other settings: tokenizer.vocab_size: 300 -> 301" in told
    assert f"feldspar tokens build {fresh} tokenizer.vocab_size=301 --overwrite" in told


def test_shards_of_other_documents_are_refused(fresh: Path) -> None:
    build_missing(load_recipe(str(fresh)))
    other = ["corpus.path=others", "corpus.split.test=0.2", "shards.path=other-shards"]
    build_missing(load_recipe(str(fresh), other))
    mixed = [*other[:2], "shards.path=shards"]
    assert "was built from other documents" in stage(fresh, "shards", *mixed)


def test_a_damaged_folder_is_refused_by_the_name_of_the_file(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_missing(load_recipe(str(fresh)))
    part = next((fresh.parent / "shards" / "train").rglob("*.tokens"))
    part.write_bytes(part.read_bytes()[:-2])
    assert states(fresh) == {"documents": READY, "shards": REFUSED}
    assert run_with(["train", str(fresh)]) == 4
    assert f"{part} is damaged" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(fresh: Path) -> None:
    (fresh.parent / "documents").mkdir()
    (fresh.parent / "documents" / "thesis.tex").write_text("mine")
    (fresh.parent / "shards").mkdir()
    (fresh.parent / "shards" / "figure.svg").write_text("mine")
    assert states(fresh) == {"documents": REFUSED, "shards": REFUSED}


def test_a_recipe_that_names_shards_only_says_what_it_lacks(fresh: Path) -> None:
    told = stage(fresh, "shards", "corpus=null", "tokenizer=null", "model.vocab_size=300")
    assert "the recipe has no section corpus" in told and "do: add the section corpus" in told


def test_a_parent_run_is_named_with_the_command_that_trains_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = stage("bilingual/small", "start_from")
    assert "do: feldspar train trunk --out runs/trunks/0" in told
    assert states("bilingual/small")["tokenizer"] is MISSING
    assert "tokenizer.base" in stage("bilingual/small", "tokenizer")


@pytest.mark.parametrize("configuration", ["config.json", "model.json"])
def test_a_parent_folder_is_a_model_of_a_hub_or_an_imported_one(
    fresh: Path, configuration: str
) -> None:
    start = "start_from={type: huggingface, path: base}"
    assert states(fresh, start)["start_from"] is MISSING
    assert "do: put config.json" in stage(fresh, "start_from", start)
    (fresh.parent / "base").mkdir()
    (fresh.parent / "base" / configuration).write_text("{}")
    assert states(fresh, start)["start_from"] is READY


def test_an_ontology_and_its_pairs_are_made_before_the_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mediswift/small", "spdf/small"):
        names = ("ontology", "documents", "tokenizer", "shards", "pairs")
        assert states(name) == dict.fromkeys(names, TO_BUILD)
    corpus = load_recipe("mediswift/small").recipe.corpus
    assert corpus is not None and corpus.ontology is not None
    corpus.ontology.path.mkdir(parents=True)
    finish_artifact(corpus.ontology.path, wanted_ontology(corpus.ontology))
    found = states("mediswift/small")
    assert (found["ontology"], found["documents"], found["pairs"]) == (READY, MISSING, MISSING)
    told = stage("mediswift/small", "ontology", "corpus.ontology.least=9")
    assert "was built with other settings: least: 275 -> 9" in told
    assert "feldspar corpus ontology hpo --least 9 --out" in told and "--overwrite" in told


@pytest.mark.parametrize("name", ["btlm", "cerebras-gpt", "gns"])
def test_small_recipes_on_the_quickstarts_documents_build_their_own_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(states(f"{name}/small").values()) == {TO_BUILD}
    own = load_recipe(f"{name}/small").recipe.corpus
    assert own == load_recipe("quickstart").recipe.corpus


def test_a_base_is_imported_before_its_tokenizer_is_extended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load_recipe("bilingual/open")
    stages = {stage.name: stage for stage in stages_of(loaded)}
    assert {stage.state for stage in stages.values()} == {State.TO_BUILD}
    start = stages["start_from"]
    assert start.do == f"feldspar import smollm2-135m --out {start.path}"
    assert list(stages) == ["start_from", "documents", "tokenizer", "shards"]
    given = load_recipe("bilingual/open", ["start_from.base=null"])
    stages = {stage.name: stage for stage in stages_of(given)}
    assert stages["start_from"].state is State.MISSING
