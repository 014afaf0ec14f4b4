"""``feldspar evaluate`` on a run and on exported folders, and what it refuses."""

import json
import re
import shutil
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest

import feldspar
from feldspar.cli.main import run_with
from feldspar.core.files import write_atomically
from feldspar.evaluate.loss.documents import text_files
from feldspar.evaluate.loss.text_loss import total_loss
from feldspar.evaluate.text_model import TextModel
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.export_folder import export_model
from feldspar.recipe.load import load_recipe
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.train.run import train

RECIPE = """
schema_version: 1
name: tiny
shards: {{path: {shards}}}
model: {{n_layers: 1, d_model: 16, n_heads: 2, d_ff: 32, vocab_size: 320, max_sequence_length: 16}}
parametrization: {{type: mup, base_d_model: 16, base_d_ff: 32, learning_rate: 1e-2, init_std: 0.05}}
schedule: {{learning_rate: [{{to: 0.1, over: rest}}]}}
phases: [{{name: all, length: 8 steps, batch: {{sequences: 2}}, mixture: natural}}]
runtime: {{trackers: [], threads: 1}}
"""


@pytest.fixture(scope="module")
def run_folder(shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_atomically(folder / "tiny.yaml", RECIPE.format(shards=shards.path))
    train(load_recipe(str(folder / "tiny.yaml")), folder / "run")
    return folder / "run"


@pytest.fixture
def exported(make_model: Callable[..., TextModel], tmp_path: Path) -> tuple[TextModel, Path]:
    model, folder = make_model(), tmp_path / "exported"
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    model.tokenizer.save(tokenizer)
    settings, weights = model.decoder.settings, model.decoder.state_dict()
    export_model(weights, ModelDescription(settings), tokenizer, folder)
    return model, folder


def test_a_runs_held_out_documents(
    run_folder: Path, shards: ShardSet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(["--quiet", "evaluate", str(run_folder), "--json", "--baselines"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["sources"]) == {"prose", "code"} == set(found["baselines"]["xz"]) - {"overall"}
    assert found["tokens"] == sum(shards.tokens("test", name) for name in ("prose", "code"))
    assert 0 < found["bits_per_byte"] < 8 and found["baselines"]["ngram"]["overall"] > 0
    assert run_with(["--quiet", "evaluate", str(run_folder), "--limit", "40", "--baselines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line] == [
        *["source", "code", "prose", "overall"],
        *["bits/byte", "code", "prose", "overall"],
    ]
    assert run_with(["--quiet", "evaluate", str(run_folder), "--split", "validation"]) == 0


def test_shards_that_lie_elsewhere_are_named(
    shards: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_on, moved = tmp_path / "shards", tmp_path / "moved"
    shutil.copytree(shards.path, trained_on)
    write_atomically(tmp_path / "tiny.yaml", RECIPE.format(shards=trained_on))
    train(load_recipe(str(tmp_path / "tiny.yaml")), tmp_path / "run")
    command = ["--quiet", "evaluate", str(tmp_path / "run"), "--json"]
    assert run_with([*command, "--baselines"]) == 0
    expected = json.loads(capsys.readouterr().out)
    trained_on.rename(moved)
    assert run_with(command) == 2
    shown = capsys.readouterr().err
    assert str(trained_on) in shown and "--shards SHARDS" in shown
    assert run_with([*command, "--baselines", "--shards", str(moved)]) == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert feldspar.evaluate(tmp_path / "run", baselines=True, shards=moved) == expected
    assert run_with([*command, "--infilling", "--shards", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is no folder" in capsys.readouterr().err


def test_padding_of_the_embedding_changes_nothing_when_exported(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the river runs under the old stone house; x = 1\n" * 3, encoding="utf-8")
    assert run_with(["--quiet", "export", str(run_folder), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    figures = []
    for model in (run_folder, tmp_path / "out"):
        command = ["--quiet", "evaluate", str(model), "--text", str(text), "--json"]
        assert run_with(command) == 0
        figures.append(json.loads(capsys.readouterr().out))
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


def test_text_on_an_exported_folder(
    exported: tuple[TextModel, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = exported
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path, text in zip(files, ("the river\n" * 4, "naïve"), strict=True):
        path.write_text(text, encoding="utf-8")
    options = [word for path in files for word in ("--text", str(path))]
    assert run_with(["--quiet", "evaluate", str(folder), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = total_loss(text_files(model, files)).as_dict()
    assert set(found) == {"bits_per_byte", "nats_per_token", "tokens", "bytes"}
    assert found == pytest.approx(expected, rel=1e-5)
    assert run_with(["--quiet", "evaluate", str(folder), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["file", *map(str, files), "overall"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{exported}"], "is not a run folder, so it has no held-out documents"),
        (["{exported}", "--text", "missing.txt"], "missing.txt does not exist"),
        (["{exported}", "--text", "a", "--tasks", "b"], "--text or --tasks, not both"),
        (["{exported}", "--text", "a", "--baselines"], "held-out documents only"),
        (["{exported}", "--text", "a", "--shards", "b"], "--shards goes with a run's held-out"),
        (["nowhere"], "nowhere is no folder"),
        (["{run}", "--split", "dev"], "has no dev split"),
        (["{run}", "--checkpoint", "7"], "holds no checkpoint at 7 tokens"),
        (["{empty}", "--text", "a"], "config.json"),
    ],
)
def test_refusals_are_short(
    exported: tuple[TextModel, Path],
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    names = {"exported": exported[1], "run": run_folder, "empty": tmp_path / "empty"}
    command = [argument.format(**names) for argument in arguments]
    assert run_with(["--quiet", "evaluate", *command]) == 2
    shown = capsys.readouterr().err
    assert message in shown and len(shown.splitlines()) <= 5 and "Traceback" not in shown


def test_figures_of_a_run_name_the_checkpoint(run_folder: Path) -> None:
    model = feldspar.open_model(run_folder, checkpoint="last")
    assert model.run is not None
    named = {"checkpoint": model.run.checkpoint.identity()}
    assert named["checkpoint"]["tokens"] == 256
    assert named["checkpoint"]["weights"].keys() == {"model.safetensors"}
    assert feldspar.evaluate(run_folder).items() >= named.items()
    assert "checkpoint" not in feldspar.evaluate(replace(model, decoder=copy(model.decoder)))


@pytest.mark.slow
def test_tasks_name_the_checkpoint_of_a_run(
    exported: tuple[TextModel, Path], run_folder: Path
) -> None:
    pytest.importorskip("lm_eval")
    figures = feldspar.evaluate_tasks(run_folder, ["sums"], limit=2)["sums"]
    assert figures["checkpoint"]["tokens"] == 256 and figures["items"] == 2
    assert "checkpoint" not in feldspar.evaluate_tasks(exported[1], ["sums"], limit=2)["sums"]


@pytest.mark.slow
def test_tasks_of_ones_own(
    exported: tuple[TextModel, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("lm_eval")
    from feldspar.evaluate.tasks.lm_eval_tasks import write_cloze_task

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    texts = ["\n".join(f"{name} {n} and a longer line" for n in range(4)) for name in "abcde"]
    names = write_cloze_task(tmp_path / "tasks", texts)
    command = ["evaluate", str(exported[1]), "--tasks", ",".join(names)]
    command += ["--include-path", str(tmp_path / "tasks"), "--limit", "3"]
    assert run_with(["--quiet", *command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["held_out_bits"]["bits_per_byte"] > 8 and "acc_norm_stderr" in found["held_out_cloze"]
    )
    assert run_with(["--quiet", *command]) == 0
    assert re.search(r"held_out_cloze +acc +0\.\d+ +\+- 0\.\d+ +0.25 +3", capsys.readouterr().out)


def test_the_bundled_tasks_are_listed_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(["evaluate", "--list-tasks"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\nword_meaning +which of four .* WordNet-3.0 +400 +0.25\n", shown)
