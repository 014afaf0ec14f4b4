"""A whole release: every change is found, and any checkpoint continues to the same bits."""

import hashlib
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import feldspar
from feldspar.cli.main import run_with
from feldspar.core.errors import FeldsparError, UserError
from feldspar.core.manifest import read_manifest, records_of, write_manifest
from feldspar.recipe.load import load_recipe
from feldspar.release.release_run import release_run
from feldspar.release.unpack import unpack_release
from feldspar.release.verify import verify_files_of, verify_release
from feldspar.train.opened_model import open_model
from feldspar.train.run import train
from tests.train.conftest import losses_of

TWO_STEPS = ["phases.0.length=1 steps", "phases.1.length=1 steps"]
MODEL_FILE = "model.safetensors"


@pytest.fixture
def copy(open_release: Path, tmp_path: Path) -> Path:
    """A copy of the release, to be changed."""
    return Path(shutil.copytree(open_release, tmp_path / "release"))


def change(release: Path, name: str, how: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file and write a manifest that fits it, as a forger would."""
    record = json.loads((release / name).read_text())
    how(record)
    (release / name).write_text(json.dumps(record))
    manifest = read_manifest(release)
    write_manifest(release, replace(manifest, files=records_of(release)))


def test_a_release_holds_all_sections_and_says_how_open_it_is(open_release: Path) -> None:
    record = json.loads((open_release / "release.json").read_text())
    present = {path.relative_to(open_release).as_posix() for path in open_release.rglob("*")}
    assert {"recipe.yaml", "metrics.jsonl", "events.jsonl", "corpus.json", "README.md"} <= present
    sections = {"identity", "model", "training", "data", "data_order", "checkpoints", "metrics"}
    assert sections | {"evaluations", "events", "reproduction", "openness"} <= record.keys()
    assert [each["tokens"] for each in record["checkpoints"]] == [512, 1024, 1536, 1792]
    assert [each["next_chunk"] for each in record["checkpoints"]] == [1, 2, 3, None]
    rates = [each["learning_rate"] for each in record["checkpoints"]]
    assert rates[0] > rates[1] > rates[2] > rates[3] > 0
    assert [phase["tokens"] for phase in record["training"]["phases"]] == [1024, 768]
    pillars = record["openness"]["pillars"]
    assert pillars["checkpoints"]["complete"] and pillars["logs"]["complete"]
    assert "no documents" in pillars["data_order"]["missing"][0]
    done = sum(pillar["complete"] for pillar in pillars.values())
    assert record["openness"]["level"] == f"{done} of 4 pillars complete"
    assert record["files"].keys() == read_manifest(open_release).files.keys() - {"release.json"}


def test_one_flipped_byte_of_any_file_is_found(copy: Path) -> None:
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    assert len({path.suffix for path in files}) >= 6
    chance = random.Random(5)
    for path in files:
        whole = path.read_bytes()
        spoilt = bytearray(whole)
        spoilt[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(spoilt)
        try:
            found = verify_files_of(copy)
        except FeldsparError as error:
            found = [error.what]
        assert path.relative_to(copy).as_posix() in found[0] and len(found) == 1
        path.write_bytes(whole)
    assert verify_files_of(copy) == []


def test_every_byte_of_the_manifest_counts(copy: Path) -> None:
    path = copy / "manifest.json"
    text = path.read_text()
    for place in (text.index("\n"), text.index("  "), len(text) - 1):
        path.write_text(f"{text[:place]}\t{text[place + 1 :]}")
        assert verify_files_of(copy) == ["manifest.json: it is not written as feldspar writes it"]


FORGERIES: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "parameters": (
        "release.json",
        lambda record: record["model"]["weights"].update(entries=1),
        "but 1 are stated",
    ),
    "parameters of a checkpoint": (
        "release.json",
        lambda record: record["checkpoints"][1].update(entries=1),
        "but 1 are stated",
    ),
    "tokens of a chunk": (
        "data_order/order.json",
        lambda order: order["chunks"][2].update(sha256="0" * 64),
        "the tokens of sequences 0 to 15 of phase long differ",
    ),
    "seed": (
        "data_order/order.json",
        lambda order: order.update(seed=4),
        "differ from their digest",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_statements_that_do_not_hold_are_found_behind_a_manifest_that_fits(
    name: str, copy: Path, shards_folder: Path
) -> None:
    file, how, said = FORGERIES[name]
    change(copy, file, how)
    assert verify_files_of(copy) == []
    problems = verify_release(copy, shards_folder).problems
    assert any(said in problem for problem in problems)


def test_the_order_is_recomputed_only_from_the_shards_of_the_run(
    open_release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verify = ["release", str(open_release), "--verify"]
    assert run_with(verify) == 0
    assert "4 chunks of 88 sequences recomputed" in capsys.readouterr().out
    assert run_with([*verify, "--shards", str(tmp_path)]) == 2
    assert "manifest.json" in capsys.readouterr().err


def test_verification_loads_no_torch(open_release: Path) -> None:
    script = (
        "import sys\nfrom feldspar.cli.main import run_with\n"
        "print(run_with(['release', sys.argv[1], '--verify']), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(open_release)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "recomputed" in done.stdout and done.stdout.splitlines()[-1] == "0 False"


def test_any_checkpoint_continues_to_the_same_bits(
    long_run: Path, open_release: Path, shards_folder: Path, tmp_path: Path
) -> None:
    release = Path(shutil.copytree(open_release, tmp_path / "elsewhere"))
    shards = Path(shutil.copytree(shards_folder, tmp_path / "shards"))
    run = unpack_release(release, tmp_path / "run", "512")
    assert [each.name for each in (run / "checkpoints").iterdir()] == ["0" * 12 + "512"]
    train(load_recipe(str(run), [f"shards.path={shards}"]), run)
    assert losses_of(run) == losses_of(long_run) and len(losses_of(run)) == 14
    name = "checkpoints/000000000001792/model.safetensors"
    assert (run / name).read_bytes() == (long_run / name).read_bytes()
    assert verify_files_of(release) == [], "training changed the release"


def test_the_commands_of_the_card_run_on_another_machine(
    long_run: Path,
    copy: Path,
    shards_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the release, whose recipe names shards that are not there."""
    commands = json.loads((copy / "release.json").read_text())["reproduction"]
    assert commands.keys() == {"install", "verify", "train", "continue", "evaluate"}
    monkeypatch.chdir(copy)
    (tmp_path / "again").mkdir()
    moved = shards_folder.rename(tmp_path / "again" / "shards")
    try:
        for kind in ("verify", "train", "continue", "evaluate"):
            for command in commands[kind]:
                assert run_with(shlex.split(command)[1:]) == 0, command
    finally:
        moved.rename(shards_folder)
    for again in ("run", "continued"):
        assert losses_of(tmp_path / "again" / again) == losses_of(long_run)
    assert verify_files_of(copy) == []
    assert str(long_run.parent) not in re.sub("path: .*", "", (copy / "recipe.yaml").read_text())


def test_without_the_state_of_the_optimizer_a_new_run_starts_from_the_weights(
    long_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = release_run(long_run, tmp_path / "release", checkpoints="weights")
    assert not list(to.rglob("optimizer*")) and verify_release(to).problems == ()
    pillar = json.loads((to / "release.json").read_text())["openness"]["pillars"]["checkpoints"]
    assert pillar["missing"] == ["4 checkpoints have no state of the optimizer"]
    unpack = ["release", str(to), "--unpack", str(tmp_path / "run"), "--checkpoint", "1024"]
    assert run_with(unpack) == 2
    assert "start_from={type: run" in capsys.readouterr().err
    start = f"start_from={{type: run, path: {to}, checkpoint: '1024'}}"
    loaded = load_recipe(str(long_run / "recipe.yaml"), [*TWO_STEPS, start])
    assert train(loaded, tmp_path / "new").steps == 2


def from_release(release: Path) -> list[str]:
    """Start from the exported model, which has no rows beyond the tokenizer's."""
    return [f"start_from={{type: huggingface, path: {release}}}", "model.vocab_size=300"]


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["run", "huggingface"])
def test_the_parent_is_named_by_digests_of_its_weights(
    kind: str, long_run: Path, open_release: Path, tmp_path: Path
) -> None:
    run_start = f"{{type: run, path: {open_release}, checkpoint: '1024'}}"
    changes = [f"start_from={run_start}"] if kind == "run" else from_release(open_release)
    loaded = load_recipe(str(long_run / "recipe.yaml"), [*TWO_STEPS, *changes])
    train(loaded, tmp_path / "run")
    release = release_run(tmp_path / "run", tmp_path / "release")
    parent = json.loads((release / "release.json").read_text())["identity"]["parent"]
    place = "checkpoints/000000000001024/model.safetensors" if kind == "run" else MODEL_FILE
    assert parent["weights"] == {MODEL_FILE: sha256_of(open_release / place)}
    assert parent["tokens"] == (1024 if kind == "run" else None)
    assert parent["type"] == kind and parent["path"] == str(open_release)


def test_authors_and_hardware_are_recorded(
    long_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(long_run, tmp_path / "run"))
    train(load_recipe(str(run), ["phases.1.length=7 steps", "runtime.precision=float32"]), run)
    authors = ["--authors", "Ada Lovelace, A. [Turing](x),"]
    assert run_with(["release", str(run), "--checkpoints", "none", *authors]) == 0
    record = json.loads((run / "release" / "release.json").read_text())
    assert record["identity"]["authors"] == ["Ada Lovelace", "A. [Turing](x)"]
    card = (run / "release" / "README.md").read_text()
    assert r"| authors | Ada Lovelace, A. \[Turing\](x) |" in card
    assert record["training"]["runtime"]["device"] == "auto"
    hardware = record["training"]["hardware"][-1]
    assert {"processor", "cores", "memory_gib", "gpus"} <= hardware.keys()
    assert hardware["precision"] == "float32" and hardware["processes"] == 1
    assert hardware["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert record["identity"]["parent"] is None
    with pytest.raises(UserError, match="a list of names"):
        feldspar.release(run, tmp_path / "again", authors="Ada Lovelace")


def test_runs_of_older_versions_are_released(
    long_run: Path, open_release: Path, tmp_path: Path
) -> None:
    """Their events name neither hardware nor digests of the weights that they started from."""
    changes = [*TWO_STEPS, *from_release(open_release)]
    loaded = load_recipe(str(long_run / "recipe.yaml"), changes)
    train(loaded, tmp_path / "run")
    events = tmp_path / "run" / "events.jsonl"
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    for event in lines:
        for name in ("hardware", "parent", "software"):
            event.pop(name, None)
    events.write_text("".join(json.dumps(event) + "\n" for event in lines))
    release = release_run(tmp_path / "run", tmp_path / "release")
    record = json.loads((release / "release.json").read_text())
    assert record["training"]["hardware"] == [] and record["identity"]["parent"]["weights"] is None
    assert record["identity"]["authors"] == [] and verify_release(release).problems == ()


def test_a_checkpoint_without_its_optimizer_is_refused(
    long_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(long_run, tmp_path / "run"))
    spoilt = run / "checkpoints" / ("0" * 11 + "1024")
    (spoilt / "optimizer.safetensors").unlink()
    command = ["release", str(run), "--out"]
    assert run_with([*command, str(tmp_path / "all")]) == 4
    said = capsys.readouterr().err
    assert "optimizer.safetensors" in said and "missing" in said and str(spoilt) in said
    assert "--checkpoints weights" in said and "delete the folder" in said
    assert not (tmp_path / "all").exists()
    weights = tmp_path / "weights"
    assert run_with([*command, str(weights), "--checkpoints", "weights"]) == 0
    assert (
        verify_release(weights).problems == () and (weights / "checkpoints" / spoilt.name).is_dir()
    )
    shutil.rmtree(spoilt)
    assert run_with([*command, str(tmp_path / "all")]) == 0
    assert len(list((tmp_path / "all" / "checkpoints").iterdir())) == 3


def test_a_damaged_last_checkpoint_does_not_release_the_one_before(
    long_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(long_run, tmp_path / "run"))
    spoilt = run / "checkpoints" / ("0" * 11 + "1792")
    (spoilt / "optimizer.safetensors").unlink()
    for kept in ("all", "weights"):
        command = ["release", str(run), "--checkpoints", kept, "--out", str(tmp_path / kept)]
        assert run_with(command) == 4
        said = capsys.readouterr().err
        assert (
            "optimizer.safetensors" in said
            and "missing" in said
            and "--checkpoints weights" not in said
        )
    shutil.rmtree(spoilt)
    assert run_with(command) == 0


def test_weights_that_are_damaged_are_refused_too(
    long_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(long_run, tmp_path / "run"))
    (run / "checkpoints" / ("0" * 11 + "1024") / MODEL_FILE).unlink()
    release = ["release", str(run), "--checkpoints"]
    assert run_with([*release, "weights", "--out", str(tmp_path / "weights")]) == 4
    said = capsys.readouterr().err
    assert MODEL_FILE in said and "missing" in said and "--checkpoints weights" not in said
    assert run_with([*release, "none", "--out", str(tmp_path / "none")]) == 0


def test_a_release_outlives_its_run_and_is_no_run(
    long_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(long_run, tmp_path / "run"))
    assert run_with(["release", str(run), "--checkpoints", "all", "--licence", "mit"]) == 0
    assert "pillars complete" in capsys.readouterr().out
    release = Path((run / "release").rename(tmp_path / "release"))
    shutil.rmtree(run)
    assert verify_release(release).problems == ()
    assert open_model(release).run is None
    assert 'license: "mit"' in (release / "README.md").read_text()
    assert run_with(["train", str(release), "--out", str(release)]) == 2
    assert "not a run" in capsys.readouterr().err


def test_a_phase_that_was_made_longer_leaves_its_order_unstated(
    long_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(long_run, tmp_path / "run"))
    train(load_recipe(str(run), ["phases.1.length=7 steps"]), run)
    release = release_run(run, run / "release", checkpoints="none")
    pillars = json.loads((release / "release.json").read_text())["openness"]["pillars"]
    assert "phases.1.length: 6 steps -> 7 steps" in pillars["data_order"]["missing"][0]
    assert pillars["checkpoints"]["missing"][0] == "the checkpoints were left out on request"
    assert verify_release(release).order == "the release has none"


def test_results_on_the_card_come_from_recorded_figures(long_run: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.json"
    tasks.write_text(json.dumps({"words": {"acc": 0.25, "acc_stderr": 0.125, "alias": "w"}}))
    release = release_run(long_run, tmp_path / "release", evaluations=[tasks], checkpoints="none")
    card = (release / "README.md").read_text()
    assert "## Results: tasks\n" in card and "| words | acc | 0.2500 | 0.1250 |" in card


def test_figures_name_the_checkpoint_that_was_measured(
    long_run: Path, open_release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "early.json", tmp_path / "late.json"]
    for file, checkpoint in zip(files, ("1024", "last"), strict=True):
        command = ["--quiet", "evaluate", str(long_run), "--split", "validation", "--json"]
        assert run_with([*command, "--checkpoint", checkpoint]) == 0
        file.write_text(capsys.readouterr().out)
    release = release_run(long_run, tmp_path / "release", evaluations=files)
    early, late = json.loads((release / "release.json").read_text())["evaluations"]
    weights = release / "checkpoints" / ("0" * 11 + "1024") / MODEL_FILE
    assert early["checkpoint"] == {"tokens": 1024, "weights": {MODEL_FILE: sha256_of(weights)}}
    assert late["checkpoint"]["tokens"] == 1792
    assert "## Results: early (checkpoint at 1,024 tokens)" in (release / "README.md").read_text()


def test_figures_of_other_weights_are_refused(long_run: Path, tmp_path: Path) -> None:
    figures = feldspar.evaluate(long_run, split="validation")
    figures["checkpoint"]["weights"][MODEL_FILE] = "0" * 64
    tasks = {"words": {"acc": 0.25, "items": 3, "checkpoint": figures["checkpoint"]}}
    for number, content in enumerate((figures, tasks)):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match=f"figures of {number} .* no checkpoint of this run"):
            release_run(long_run, tmp_path / "release", evaluations=[file])
    assert not (tmp_path / "release").exists()
