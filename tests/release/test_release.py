"""``feldspar release``: folders of each class, the snippet on their card, and their manifest."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from feldspar.cli.main import run_with
from feldspar.evaluate.exported import open_exported
from feldspar.release.release_run import release_run
from feldspar.release.verify import verify_files_of
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.run_folder import RunFolder
from feldspar.train.load import load_run
from tests.release.conftest import CLASSES


@pytest.fixture(scope="session")
def releases(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each run released."""
    root = tmp_path_factory.mktemp("releases")
    return {name: release_run(run, root / name, False) for name, run in runs.items()}


@pytest.fixture
def release(releases: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of one release, to be damaged."""
    return Path(shutil.copytree(releases["LlamaForCausalLM"], tmp_path / "release"))


def snippet(folder: Path) -> str:
    """The Python that the card shows, of this folder."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    return code.replace('"PATH"', repr(str(folder)))


@pytest.mark.parametrize("name", CLASSES)
def test_the_snippet_on_the_card_runs(
    name: str, releases: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = releases[name]
    configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert configuration["architectures"] == [name]
    code = snippet(folder)
    assert ("trust_remote_code=True" in code) == (name == "FeldsparForCausalLM")
    exec(code, {})
    assert capsys.readouterr().out.startswith("The")


def test_the_card_holds_the_description_without_its_markup(releases: dict[str, Path]) -> None:
    lines = (releases["GPT2LMHeadModel"] / "README.md").read_text(encoding="utf-8").splitlines()
    assert r"Two \# sources \| \<b\>bold\</b\> \[x\](y)" in lines


def test_a_whole_release_is_whole(
    releases: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in releases.values():
        assert verify_files_of(folder) == []
        assert run_with(["release", str(folder), "--verify"]) == 0
        assert "is whole" in capsys.readouterr().out


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a flipped byte": (lambda f: _flip(f / "model.safetensors"), "content differs"),
    "a shorter file": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-1]
        ),
        "expected",
    ),
    "a changed card": (
        lambda f: (f / "README.md").write_text((f / "README.md").read_text() + "!"),
        "README.md",
    ),
    "a missing file": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: missing"),
    "a file too many": (lambda f: (f / "more.py").write_text("1"), "more.py: not listed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_release_is_named(
    damage: str, release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, said = DAMAGES[damage]
    spoil(release)
    assert run_with(["release", str(release), "--verify"]) == 1
    output = capsys.readouterr().out
    assert said in output and len(output.splitlines()) == 1


def test_a_manifest_that_was_changed_is_refused(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = release / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"]["README.md"]["bytes"] += 1
    manifest["files"]["README.md"]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    assert run_with(["release", str(release), "--verify"]) == 4
    assert "altered" in capsys.readouterr().err


def test_what_is_no_release_is_refused(
    tmp_path: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, runs["GPT2LMHeadModel"]):
        assert run_with(["release", str(folder), "--verify"]) == 2
        assert "manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize("name", CLASSES)
def test_an_exported_run_comes_back_as_the_same_model(
    name: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    assert run_with(["export", str(runs[name]), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["class"] == name
    assert run_with(["export", str(runs[name]), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert run_with(["import", str(out), "--out", str(back), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["start_from"]["path"] == str(back)
    run = load_run(runs[name])
    model = open_exported(back)
    prompt = torch.arange(1, 9)[None]
    with torch.no_grad():
        expected = run.decoder.logits(run.decoder(prompt))[..., : model.tokenizer.vocab_size]
        found = model.decoder.logits(model.decoder(prompt))
    # Multipliers are folded into the weights: float32 rounding of sums over 64 terms.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_another_class_that_cannot_express_the_model_is_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(runs["GPT2LMHeadModel"]), tmp_path / "out"
    assert run_with(["export", run, "--out", str(out), "--architecture", "llama"]) == 2
    assert "model.norm.type" in capsys.readouterr().err and not out.exists()


def test_training_says_the_class_and_what_keeps_it_from_being_a_common_one(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = runs["FeldsparForCausalLM"] / "recipe.yaml"
    assert run_with(["train", str(recipe), "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "exported as FeldsparForCausalLM" in said
    assert "GPT2LMHeadModel would need model.positions: learned" in said


def test_an_unfinished_run_is_said_everywhere(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(runs["LlamaForCausalLM"], tmp_path / "run"))
    assert run_with(["evaluate", str(run), "--text", str(Path(__file__))]) == 0
    assert "unfinished" not in capsys.readouterr().err
    store = CheckpointStore(RunFolder(run).checkpoints)
    first, last = store.all()[0], store.all()[-1]
    for checkpoint in store.all()[1:]:
        shutil.rmtree(checkpoint.folder)
    said = f"the run is unfinished: {first.position:,} of {last.position:,} planned tokens"
    assert run_with(["evaluate", str(run), "--text", str(Path(__file__))]) == 0
    assert said in capsys.readouterr().err
    assert run_with(["release", str(run), "--out", str(tmp_path / "out")]) == 0
    assert said in capsys.readouterr().err
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"{first.position:,} of {last.position:,} planned tokens" in card
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["counts"]
    assert run_with(["evaluate", str(tmp_path / "out"), "--text", str(Path(__file__))]) == 0
    assert f"unfinished: {first.position:,} of {last.position:,} planned" in capsys.readouterr().err
    assert counts["tokens"] == first.position and counts["planned_tokens"] == last.position
