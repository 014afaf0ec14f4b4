"""Missing stages built by the commands that need them, continued where they were stopped."""

import json
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.prepare.build import build_missing, require_ready
from feldspar.prepare.stages import STARTS
from feldspar.recipe.load import load_recipe
from tests.corpus.test_ontology import OBO

TRAINING = ("model", "parametrization", "phases", "evaluation", "runtime")
"""Sections that only training needs."""


def test_training_a_fresh_recipe_builds_everything(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(["train", str(fresh), "--out", "run"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("run: 256 tokens in 4 steps")
    assert [line.split(":")[0] for line in err.splitlines() if " into " in line] == [
        *("documents", "tokenizer and shards")
    ]
    manifest = json.loads((fresh.parent / "shards" / "manifest.json").read_text())
    assert manifest["command"] == f"feldspar tokens build {fresh}"
    assert run_with(["train", str(fresh), "--out", "run"]) == 0
    assert " into " not in capsys.readouterr().err


def test_a_build_goes_on_after_the_documents(fresh: Path) -> None:
    loaded = load_recipe(str(fresh))
    build_missing(loaded)
    written = (fresh.parent / "documents" / "manifest.json").stat().st_mtime_ns
    shards = fresh.parent / "shards"
    first = json.loads((shards / "manifest.json").read_text())["digest"]
    shards.rename(fresh.parent / "shards.incomplete-00000000")  # as a killed process leaves it
    build_missing(loaded)
    assert (fresh.parent / "documents" / "manifest.json").stat().st_mtime_ns == written
    assert json.loads((shards / "manifest.json").read_text())["digest"] == first
    assert not (fresh.parent / "shards.incomplete-00000000").exists()


def test_no_build_refuses_with_the_exact_commands(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    override = "phases.0.length=5 steps"
    assert run_with(["train", str(fresh), override, "--no-build"]) == 2
    said = capsys.readouterr().err
    arguments = f"{fresh} '{override}'"
    assert "documents: " in said and "is not built yet" in said
    command = f"feldspar corpus build {arguments} && feldspar tokens build {arguments}"
    assert f"do: {command}\n" in said
    assert sorted(path.name for path in fresh.parent.iterdir()) == ["mine.yaml", "notes.jsonl"]
    for part in command.split(" && "):
        assert run_with(part.replace(f"'{override}'", "seed=0").split()[1:]) == 0
    require_ready(load_recipe(str(fresh)))


def test_a_dry_run_lists_every_stage_and_builds_none(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(["train", str(fresh), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[:3]] == [
        [name, "will", "be", "built"] for name in ("documents", "tokenizer", "shards")
    ]
    assert lines[-1] == "dry run: nothing was trained"
    assert run_with(["train", str(fresh), "--dry-run", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [stage["state"] for stage in record["stages"]] == ["will be built"] * 3
    assert not (fresh.parent / "documents").exists()
    build_missing(load_recipe(str(fresh)))
    assert run_with(["train", str(fresh), "--dry-run", "corpus.clean.short=9"]) == 2
    out, err = capsys.readouterr()
    assert "refused" in out and "found: clean.short: 0 -> 9" in err


def test_nothing_is_built_when_something_cannot_be(fresh: Path) -> None:
    loaded = load_recipe(str(fresh), ["start_from={type: run, path: runs/base, recipe: base.yaml}"])
    with pytest.raises(UserError, match="runs/base holds no checkpoint") as caught:
        build_missing(loaded)
    assert caught.value.do == "feldspar train base.yaml --out runs/base"
    assert not (fresh.parent / "documents").exists()
    build_missing(loaded, without=STARTS)
    assert (fresh.parent / "shards").is_dir()


def test_shards_bring_their_documents(fresh: Path) -> None:
    assert run_with(["tokens", "build", str(fresh)]) == 0
    require_ready(load_recipe(str(fresh)))


def test_a_recipe_without_a_model_brings_its_documents_too(fresh: Path) -> None:
    lines = fresh.read_text().splitlines()
    kept = [line for line in lines if line.split(":")[0] not in TRAINING]
    fresh.write_text("\n".join(kept) + "\n")
    assert run_with(["tokens", "build", str(fresh)]) == 0
    assert (fresh.parent / "shards" / "manifest.json").is_file()


def test_several_processes_build_nothing(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="is not built yet") as caught:
        build_missing(load_recipe(str(fresh)))
    assert "feldspar corpus build" in str(caught.value)


def test_an_ontology_is_written_for_its_documents_and_pairs(fresh: Path) -> None:
    (fresh.parent / "x.obo").write_text(OBO)
    ontology = "corpus.ontology={path: terms, file: x.obo, root: 'X:1', least: 1}"
    pairs = (
        "{type: pairs, path: terms/train.jsonl, "
        "template: {source: '{definition}', target: '{branch}'}}"
    )
    phase = f"{{name: pairs, length: 1 steps, batch: {{sequences: 1}}, data: {pairs}}}"
    loaded = load_recipe(
        str(fresh),
        [
            ontology,
            f"phases=[{phase}]",
            "corpus.sources.terms={reader: jsonl, path: terms/terms.jsonl}",
        ],
    )
    built = build_missing(loaded)
    assert [stage.name for stage in built] == [
        *("ontology", "documents", "tokenizer", "shards", "pairs")
    ]
    require_ready(loaded)
    assert (fresh.parent / "terms" / "train.jsonl").is_file()
