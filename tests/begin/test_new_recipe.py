"""Recipes for made-up folders load, plan, build what was counted, and train."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import feldspar
from feldspar.begin.choice import Choice, Chooser
from feldspar.begin.held_out import hold_out
from feldspar.begin.new_recipe import NewRecipe, parameters_of, write_new_recipe
from feldspar.begin.pile import measure_pile
from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.train.step_timing import Pace
from tests.made_text import documents

SPEED = 20_000.0
"""Tokens a second of a machine that these tests make up."""


def made(paths: list[Path], out: Path, minutes: float = 1.0, speed: float = SPEED) -> NewRecipe:
    """Write a recipe for a machine of a known speed."""
    pile = measure_pile(paths)
    share = hold_out([source.documents for source in pile.sources]).train_share
    chooser = Chooser(pile, share, lambda candidate, sequences: Pace(speed, speed))
    return write_new_recipe(pile, out, minutes, chooser=chooser)


def texts_in(folder: Path, count: int = 30, shortest: int = 1500) -> Path:
    folder.mkdir(parents=True)
    for number, text in enumerate(documents(count, shortest)):
        (folder / f"{number}.txt").write_text(text)
    return folder


def code_and_text(folder: Path) -> list[Path]:
    texts_in(folder / "docs")
    (folder / "src").mkdir()
    for number, text in enumerate(documents(30, 1500, seed=1)):
        (folder / "src" / f"{number}.py").write_text(text)
    return [folder]


def records(folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    lines = (json.dumps({"url": str(n), "content": t}) for n, t in enumerate(documents(40, 1500)))
    (folder / 'my "best" records: #1.jsonl').write_text("\n".join(lines))
    return [folder / 'my "best" records: #1.jsonl']


def one_file(folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    (folder / "book").write_text("\n\n".join(documents(200, 3000, seed=3)))
    return [folder / "book"]


KINDS = {
    "folder": lambda folder: [texts_in(folder / "texts")],
    "code": code_and_text,
    "records": records,
    "file": one_file,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_loads_and_plans_from_anywhere(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make: Callable[[Path], list[Path]] = KINDS[kind]
    inputs = make(tmp_path / "in puts")
    monkeypatch.chdir(tmp_path)
    relative = [Path(os.path.relpath(path)) for path in inputs]
    new = made(relative, Path("out/re cipe.yaml"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = tmp_path / "out" / "re cipe.yaml"
    loaded = feldspar.load_recipe(recipe)
    assert isinstance(loaded, feldspar.LoadedRecipe) and loaded.recipe.corpus is not None
    sources = loaded.recipe.corpus.sources.values()
    assert all(source.path is not None and source.path.exists() for source in sources)
    assert loaded.recipe.corpus.path == tmp_path / "out" / "data" / "re-cipe" / "documents"
    planned = feldspar.plan(loaded)
    assert isinstance(planned, feldspar.Plan)
    assert planned.shapes.parameters == new.choice.parameters
    assert planned.timeline.length == new.choice.tokens
    assert planned.export_class.description.startswith("LlamaForCausalLM")
    report = feldspar.build_corpus(loaded, workers=1)
    assert sum(counts.read.documents for counts in report.sources.values()) == new.pile.documents


def test_minutes_and_text_bound_the_training(tmp_path: Path) -> None:
    pile = measure_pile([texts_in(tmp_path / "texts", 60)])

    def choose(minutes: float, speed: float = SPEED, parameters: float | None = None) -> Choice:
        chooser = Chooser(pile, 0.9, lambda candidate, sequences: Pace(speed, speed / 2))
        return chooser.choose(minutes, parameters)

    short, long = choose(0.1), choose(1000)
    assert short.bound_by == "minutes" and long.bound_by == "text"
    assert 0.5 * 6 < short.seconds <= 6 and short.busy
    assert long.epochs == pytest.approx(4, rel=0.05)
    assert long.parameters >= short.parameters
    assert choose(1, parameters=2e6).parameters > 3 * short.parameters
    assert choose(0.05, SPEED).tokens < 0.6 * short.tokens


def test_what_is_built_never_lies_inside_an_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = texts_in(tmp_path / "home")
    monkeypatch.chdir(home)
    new = made([Path()], Path("mine.yaml"))
    corpus = new.loaded.recipe.corpus
    assert corpus is not None and corpus.sources["home"].path == home
    assert not corpus.path.is_relative_to(home) and new.places.run is not None
    assert not new.places.run.is_relative_to(home)


@pytest.mark.parametrize(
    ("counts", "validation", "test"),
    [
        ([1], 0, 0),
        ([2, 2], 0, 0),
        ([4], 0.05, 0),
        ([5], 0.05, 0.05),
        ([400], 0.05, 0.05),
        ([100_000], 0.005, 0.005),
    ],
)
def test_held_out_shares(counts: list[int], validation: float, test: float) -> None:
    shares = hold_out(counts)
    assert (shares.validation, shares.test) == (validation, test)
    assert 0.6 <= shares.train_share <= 1


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the text is too little to train on"):
        made([texts_in(tmp_path / "texts", 3, 300)], tmp_path / "mine.yaml")
    assert not (tmp_path / "mine.yaml").exists()


def test_a_request_that_cannot_be_met_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    texts = str(texts_in(tmp_path / "texts", 1))
    for options, message in (
        (["--out", str(tmp_path / "mine.yaml")], "exists already"),
        (["--out", str(tmp_path)], "ends in .yaml"),
        (["--out", str(tmp_path / "new.yaml"), "--minutes", "0"], "--minutes"),
        (["--out", str(tmp_path / "new.yaml"), "--size", "many"], "--size"),
    ):
        assert run_with(["new", texts, *options]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == "mine"


@pytest.mark.parametrize(("text", "number"), [("2M", 2e6), ("1.3b", 1.3e9), ("800000", 8e5)])
def test_sizes(text: str, number: float) -> None:
    assert parameters_of(text) == number


@pytest.mark.slow
def test_a_recipe_trains_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    texts_in(tmp_path / "texts", 24)
    command = ["new", "texts", "--minutes", "0.01", "--out", "mine.yaml"]
    assert run_with(command) == 0
    shown = capsys.readouterr()
    assert "feldspar train mine.yaml" in shown.err and "texts" in shown.out
    assert run_with(["train", "mine.yaml"]) == 0
    assert "validation loss" in capsys.readouterr().out
    assert run_with(["export", "runs/mine", "--out", "base"]) == 0
    capsys.readouterr()
    again = ["new", "texts", "--minutes", "0.005", "--start-from", "base", "--out", "more.yaml"]
    assert run_with([*again, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    first = feldspar.load_recipe("mine.yaml")
    assert isinstance(first, feldspar.LoadedRecipe)
    assert told["sources"]["texts"]["documents"] == 24
    assert told["vocab_size"] == first.recipe.model.vocab_size
    assert run_with(["train", "more.yaml"]) == 0
    assert "validation loss" in capsys.readouterr().out
