"""Recipes through the front door: loaded in every form, planned, sized, built, and refused."""

import json
from pathlib import Path
from typing import Any

import pytest

import feldspar
from feldspar.cli.main import run_with
from feldspar.recipe.shipped import shipped_names

FIT = [(10.0**n, 5 * (10.0**n) ** -0.05) for n in range(17, 22)]
DOCUMENTS_ONLY = """\
schema_version: 1
name: documents
corpus: {path: documents, sources: {notes: {reader: jsonl, path: notes.jsonl}}}
"""


@pytest.mark.parametrize("overrides", [["seed=5", "model.d_ff=48"], {"seed": 5, "model.d_ff": 48}])
def test_a_recipe_is_a_name_a_path_or_loaded(overrides: Any, recipe: Path) -> None:
    loaded = feldspar.load_recipe(recipe, overrides)
    assert isinstance(loaded, feldspar.LoadedRecipe) and isinstance(loaded.recipe, feldspar.Recipe)
    assert loaded.recipe.seed == 5 and loaded.recipe.model.d_ff == 48
    assert feldspar.load_recipe(loaded) is loaded
    again = feldspar.load_recipe(loaded, {"name": "other"})
    assert (again.recipe.name, again.recipe.seed) == ("other", 5)
    assert feldspar.load_recipe("quickstart").recipe.name == "quickstart"
    vision = feldspar.load_recipe("revbifpn/small")
    assert isinstance(vision.recipe, feldspar.VisionRecipe)


def test_overrides_of_any_type(recipe: Path) -> None:
    phases = [{"name": "one", "length": "1e3 tokens", "batch": {"sequences": 2}}]
    words = 'one "two": \u6771 \U0001f600, \\ {3}\n'
    given = {"phases": phases, "tokenizer": None, "description": words, "seed": 1_000_000}
    loaded = feldspar.load_recipe(recipe, given)
    assert isinstance(loaded, feldspar.LoadedRecipe)
    assert loaded.recipe.phases[0].name == "one" and loaded.recipe.tokenizer is None
    assert loaded.recipe.description == words and loaded.recipe.seed == 1_000_000


def test_shipped_recipes() -> None:
    found = feldspar.shipped_recipes()
    assert list(found) == shipped_names() and all(found.values())


@pytest.mark.parametrize("name", ["cerebras-gpt/small", "revbifpn/small"])
def test_a_plan_is_that_of_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["vision", "plan"] if "revbifpn" in name else ["plan"]
    assert run_with([*command, name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    planned = feldspar.plan(name)
    summary = json.loads(json.dumps(planned.summary()))
    assert planned.timeline.steps == told["steps"]
    assert summary == {key: told[key] for key in summary}


def test_an_estimate_is_that_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device", "H100", "--devices", "8", "--budget", "1e19"]
    assert run_with(["plan", "cerebras-gpt/paper", *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    sized = feldspar.size("cerebras-gpt/paper", 1e19)
    found = json.loads(json.dumps(feldspar.estimate(sized, device="H100", devices=8)))
    assert found["time"] == told["time"] and found["memory"] == told["memory"]
    assert list(sized.overrides) == told["sizing"]["overrides"]


def test_data_is_built(recipe: Path, run: Path, tmp_path: Path) -> None:
    report = feldspar.build_corpus(recipe)
    assert report.sources["notes"].read.documents == 80 and not report.built
    assert feldspar.build_shards(recipe).up_to_date
    notes = recipe.parent / "notes.jsonl"
    for threshold in (0.8, 0.9):
        found = feldspar.deduplicate(
            [notes, notes], tmp_path / str(threshold), {"threshold": threshold}, workers=1
        )
        assert found.sources["notes"].read.documents == 80


def test_a_law(tmp_path: Path) -> None:
    fitted = feldspar.fit_law(FIT)
    assert fitted.predict(1e22) == pytest.approx(5 * 1e22**-0.05, rel=1e-6)
    file = tmp_path / "points.csv"
    file.write_text("flops,loss\n" + "".join(f"{flops},{loss}\n" for flops, loss in FIT))
    assert feldspar.fit_law(file).predict(1e22) == fitted.predict(1e22)


def test_a_report(run: Path, tmp_path: Path) -> None:
    page = feldspar.write_report(run, tmp_path / "report.html")
    assert "tiny" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: feldspar.load_recipe("quickstrat"), "did you mean 'quickstart'"),
        (lambda: feldspar.load_recipe("quickstart", "seed=1"), "overrides: a list of key=value"),
        (lambda: feldspar.load_recipe("quickstart", [1]), "overrides: a list of key=value"),
        (lambda: feldspar.load_recipe("quickstart", {"sead": 1}), "sead: unknown key"),
        (lambda: feldspar.load_recipe(3), "recipe: a path is needed"),
        (lambda: feldspar.plan("my.yaml"), "describes documents only"),
        (lambda: feldspar.size("revbifpn/small", 1e18), "recipe of a vision model"),
        (lambda: feldspar.size("quickstart", -1), "--budget: must be above 0"),
        (lambda: feldspar.estimate("quickstart", utilisation=0.5), "needs"),
        (lambda: feldspar.train("quickstart", 3), "out: a path is needed"),
        (lambda: feldspar.evaluate("none"), "is no folder"),
        (lambda: feldspar.export("none", "to"), "is not a run folder"),
        (lambda: feldspar.release("none"), "is not a run folder"),
        (lambda: feldspar.import_model("none", "to"), "is no folder"),
        (lambda: feldspar.deduplicate("a.jsonl", "out"), "inputs: a list of files"),
        (lambda: feldspar.deduplicate([], "out", {"threshold": 2}), "--threshold: "),
        (lambda: feldspar.fit_law([(1.0, 2.0), "a.csv"]), "points: pairs of FLOPs and loss"),
        (lambda: feldspar.fit_law([]), "too few for a law"),
        (lambda: feldspar.write_report([]), "runs: at least one"),
        (lambda: feldspar.reproduce("nothing"), "is no paper"),
    ],
)
def test_bad_input_is_refused(call: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(DOCUMENTS_ONLY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(feldspar.UserError, match=message):
            call()


def test_data_that_is_not_built_is_refused(recipe: Path, tmp_path: Path) -> None:
    moved = feldspar.load_recipe(recipe, {"shards.path": str(tmp_path / "none")})
    with pytest.raises(feldspar.UserError, match="is not built yet"):
        feldspar.train(moved, tmp_path / "run", build=False)
