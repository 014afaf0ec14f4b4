"""The files of a run's folder are compared with its checkpoint: altered ones change no figure."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from feldspar.cli.main import run_with
from feldspar.core.errors import FeldsparError, RunError, SetupError, UserError
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.train.lifecycle import RunResult
from feldspar.train.load import load_run
from feldspar.train.run import train
from feldspar.train.run_tokenizer import run_tokenizer
from tests.train.conftest import losses_of, metrics_of

SHORT = ["phases.0.length=8 steps", "phases.1.length=4 steps", "evaluation.every=6 steps"]


@pytest.fixture(scope="module")
def finished(shards_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps with checkpoints at 4, 8 and 12, all kept, its recipe beside it."""
    from tests.train.conftest import RECIPE

    root = tmp_path_factory.mktemp("finished")
    (root / "tiny.yaml").write_text(RECIPE.format(shards=shards_folder))
    more(root / "tiny.yaml", root / "run")
    return root / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    shutil.copy(finished.parent / "tiny.yaml", tmp_path / "tiny.yaml")
    return shutil.copytree(finished, tmp_path / "run")


def more(recipe: Path, out: Path, *overrides: str, overwrite: bool = False) -> RunResult:
    given = [*SHORT, "checkpoints.keep.last=9", *overrides]
    return train(load_recipe(str(recipe), given), out, overwrite)


def back_to(run: Path, tokens: int) -> None:
    """Drop the checkpoints after ``tokens``, as if the run had ended sooner."""
    for checkpoint in (run / "checkpoints").iterdir():
        if int(checkpoint.name) > tokens:
            shutil.rmtree(checkpoint)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def logits(run: Path) -> torch.Tensor:
    loaded = load_run(run)
    with torch.no_grad():
        return loaded.decoder(torch.arange(8)[None])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["edit", "garbage", "delete"])
def test_the_recipe_is_that_of_the_checkpoint(run: Path, news: list[str], damage: str) -> None:
    expected, recipe = logits(run), load_recipe(str(run))
    path = run / "recipe.yaml"
    if damage == "edit":
        edit(path, "embedding_multiplier: 1.0", "embedding_multiplier: 3.0")
    elif damage == "garbage":
        path.write_bytes(b"\xff: [")
    else:
        path.unlink()
    news.clear()
    assert torch.equal(logits(run), expected)
    again = load_recipe(str(run))
    assert again.recipe == recipe.recipe and again.digest == recipe.digest
    said = "embedding_multiplier" if damage == "edit" else "is missing or is not a recipe"
    assert said in news[0] and str(run / "recipe.yaml") in news[0] and "state.json" in news[0]


def test_an_unaltered_recipe_is_taken_in_silence_and_names_its_lines(
    run: Path, news: list[str]
) -> None:
    loaded = load_recipe(str(run))
    assert news == []
    assert loaded.origins["model",].startswith(f"{run / 'recipe.yaml'}:")


def test_each_checkpoint_has_its_own_recipe(run: Path) -> None:
    more(run.parent / "tiny.yaml", run, "phases.1.length=8 steps")
    assert load_run(run).recipe.phases[1].length.value == 8
    assert load_run(run, str(12 * 128)).recipe.phases[1].length.value == 4


def test_a_resumed_run_writes_its_recipe_again(finished: Path, run: Path) -> None:
    back_to(run, 8 * 128)
    names = ("recipe.yaml", "parametrization.json")
    whole = {name: (run / name).read_text().replace(str(run.parent), "") for name in names}
    edit(run / "recipe.yaml", "seed: 3", "seed: 4")
    (run / "parametrization.json").write_text("{}")
    more(run.parent / "tiny.yaml", run)
    assert {name: (run / name).read_text().replace(str(run.parent), "") for name in names} == {
        name: text.replace(str(finished.parent), "") for name, text in whole.items()
    }
    assert losses_of(run) == losses_of(finished)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_a_damaged_tokenizer_is_refused_and_copied_again_on_resume(
    run: Path, name: str, damage: str
) -> None:
    path = run / "tokenizer" / name
    whole = path.read_bytes()
    if damage == "flip":
        flip(path)
    else:
        path.unlink()
    with pytest.raises(FeldsparError, match="tokenizer") as caught:
        load_run(run)
    assert caught.value.exit_code == 4 and "feldspar train" in str(caught.value)
    more(run.parent / "tiny.yaml", run)
    assert path.read_bytes() == whole
    load_run(run)


def test_another_whole_tokenizer_is_refused(run: Path, tmp_path: Path) -> None:
    from feldspar.core.manifest import Manifest, records_of, write_manifest

    folder = run / "tokenizer"
    (folder / "manifest.json").unlink()
    (folder / "extension.json").write_text("{}")
    write_manifest(folder, Manifest("tokenizer", "", "0", files=records_of(folder)))
    checkpoint = CheckpointStore(run / "checkpoints").newest_valid()
    assert checkpoint is not None
    with pytest.raises(RunError, match="another tokenizer than the one"):
        run_tokenizer(run, checkpoint)
    more(run.parent / "tiny.yaml", run)
    assert not (folder / "extension.json").exists()


def test_a_checkpoint_with_a_file_too_many_is_passed_over(run: Path, news: list[str]) -> None:
    newest = sorted((run / "checkpoints").iterdir())[-1]
    shutil.copy(newest / "model.safetensors", newest / "model-rank00001.safetensors")
    assert load_run(run).checkpoint.position == 8 * 128
    assert any("model-rank00001.safetensors" in line for line in news)


def records(run: Path) -> list[bytes]:
    return (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("damage", "said", "left"),
    [
        ("line", "no record of step 3", {1, 2, *range(4, 13)}),
        ("first", "no record of step 1", set(range(2, 13))),
        ("garbage", "no record of step 3; 1 unreadable", {1, 2, *range(4, 13)}),
        ("value", "a value differs", set(range(1, 13))),
        ("delete", "no record of step 1 to 8", set(range(9, 13))),
        ("no tokens", "no record of step 3; 1 unreadable", {1, 2, *range(4, 13)}),
    ],
)
def test_damaged_records_are_named_and_the_run_goes_on(
    finished: Path, run: Path, news: list[str], damage: str, said: str, left: set[int]
) -> None:
    back_to(run, 8 * 128)
    lines = records(run)
    if damage == "line":
        del lines[2]
    elif damage == "first":
        del lines[0]
    elif damage == "garbage":
        lines[2] = b"\x00\xff" + lines[2][:10] + b"\n"
    elif damage == "value":
        lines[2] = lines[2].replace(b'"train/loss": ', b'"train/loss": 1')
    elif damage == "no tokens":
        lines[2] = lines[2].replace(b'"tokens"', b'"tokems"')
    (run / "metrics.jsonl").write_bytes(b"".join(lines))
    if damage == "delete":
        (run / "metrics.jsonl").unlink()
    more(run.parent / "tiny.yaml", run)
    assert any(said in line and "metrics.jsonl" in line for line in news), news
    assert {record["step"] for record in metrics_of(run)} == left
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "resumed" and "damaged_records" in events[-1]
    assert losses_of(run)[-4:] == losses_of(finished)[-4:]


def test_whole_records_are_continued_in_silence(finished: Path, run: Path, news: list[str]) -> None:
    back_to(run, 8 * 128)
    more(run.parent / "tiny.yaml", run)
    assert [line for line in news if "warning" in line] == []
    assert losses_of(run) == losses_of(finished)
    events = (run / "events.jsonl").read_text()
    assert "damaged_records" not in events


def test_a_run_without_its_checkpoints_says_that_it_starts_anew(
    finished: Path, run: Path, news: list[str]
) -> None:
    shutil.rmtree(run / "checkpoints")
    more(run.parent / "tiny.yaml", run)
    assert any("no checkpoint of its 12 steps" in line for line in news)
    assert losses_of(run) == losses_of(finished)


def test_overwrite_clears_checkpoints_through_a_link(
    finished: Path, run: Path, tmp_path: Path
) -> None:
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    (run / "checkpoints").symlink_to(tmp_path / "elsewhere")
    (run / "summary.json").write_text("{}")
    result = more(run.parent / "tiny.yaml", run, "seed=9", overwrite=True)
    assert result.steps == 12
    assert (run / "checkpoints").is_symlink() and not (run / "summary.json").exists()
    assert [record["step"] for record in metrics_of(run)] == list(range(1, 13))
    assert losses_of(run) != losses_of(finished)
    seeds = {
        json.loads((folder / "state.json").read_text())["recipe"]["seed"]
        for folder in (tmp_path / "elsewhere").iterdir()
    }
    assert seeds == {9}


def test_overwrite_that_cannot_clear_keeps_the_records(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first thing to go is the newest checkpoint; what stops there leaves a run to resume."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "model.safetensors")

    before = records(run)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(SetupError, match="permission denied"):
            more(run.parent / "tiny.yaml", run, overwrite=True)
    assert records(run) == before
    left = [int(each.name) for each in (run / "checkpoints").iterdir() if each.name.isdigit()]
    assert sorted(left) == [4 * 128, 8 * 128]
    assert more(run.parent / "tiny.yaml", run).steps == 12


def test_a_link_to_nothing_is_refused_before_anything_is_lost(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints").rename(tmp_path / "disk")
    (run / "checkpoints").symlink_to(tmp_path / "not mounted")
    before = records(run)
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is a link whose target is not a folder"):
            more(run.parent / "tiny.yaml", run, overwrite=overwrite)
    assert records(run) == before


def test_read_only_shards_do_not_stop_a_restart(
    shards_folder: Path, tmp_path: Path, recipe_file: Path
) -> None:
    shards = shutil.copytree(shards_folder, tmp_path / "shards")
    for directory, _, names in os.walk(shards):
        for name in names:
            (Path(directory) / name).chmod(0o444)
        Path(directory).chmod(0o555)
    out = tmp_path / "run"
    once = [f"shards.path={shards}", "phases.0.length=2 steps", "phases.1.length=1 steps"]
    for _ in range(2):
        train(load_recipe(str(recipe_file), once), out, overwrite=True)
        copied = [out / "tokenizer", *(out / "tokenizer").iterdir()]
        assert all(path.stat().st_mode & 0o200 for path in copied), "the owner may write"
    (out / "tokenizer" / "tokenizer.json").unlink()
    for path in (out / "tokenizer").iterdir():
        path.chmod(0o444)
    (out / "tokenizer").chmod(0o555)  # as an earlier version copied it
    train(load_recipe(str(recipe_file), once), out, overwrite=True)
    assert (out / "tokenizer" / "tokenizer.json").is_file()


def test_every_other_file_may_be_garbage(finished: Path, run: Path) -> None:
    """Whatever lies beside the checkpoints: the run is resumed to the same weights."""
    back_to(run, 8 * 128)
    for path in [path for path in run.rglob("*") if path.is_file()]:
        if "checkpoints" not in path.parts:
            path.write_bytes(b"\xff{garbage")
    more(run.parent / "tiny.yaml", run)
    assert losses_of(run) == losses_of(finished)[-4:]
    assert torch.equal(logits(run), logits(finished))


def test_held_out_documents_of_other_shards_are_refused(
    shards_folder: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = shutil.copytree(shards_folder, tmp_path / "shards")
    once = [f"shards.path={shards}", "phases.0.length=2 steps", "phases.1.length=1 steps"]
    train(load_recipe(str(recipe_file), once), tmp_path / "run")
    command = ["evaluate", str(tmp_path / "run"), "--split", "validation"]
    assert run_with(command) == 0
    settings = ShardSettings(path=shards)
    documents = shards_folder.parent / "documents"
    build_shards(documents, TrainBpe(vocab_size=300), settings, seed=1, overwrite=True, workers=1)
    assert run_with(command) == 2
    assert "other shards than" in capsys.readouterr().err


def test_state_names_what_the_run_is_made_of(run: Path) -> None:
    checkpoint = CheckpointStore(run / "checkpoints").newest_valid()
    assert checkpoint is not None
    state: dict[str, Any] = checkpoint.state
    size = (run / "metrics.jsonl").stat().st_size
    assert state["records"]["bytes"] == size and len(state["tokenizer"]) == 64
