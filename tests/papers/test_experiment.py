"""An experiment in its folder: run, continued, refused; its report; its cost."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.errors import UserError
from feldspar.papers.btlm.contexts import loss_by_position
from feldspar.papers.btlm.phase_switch import phase_switch
from feldspar.papers.catalogue import PAPERS, paper_named
from feldspar.papers.kit.experiment import (
    Again,
    needed_data,
    open_folder,
    planned_costs,
    run_experiment,
)
from feldspar.papers.kit.paper import (
    Data,
    Figures,
    Findings,
    Paper,
    Results,
    Scale,
    Stage,
    values_of,
)
from feldspar.papers.kit.report import (
    circumstances,
    judge_again,
    kept_of,
    machine,
    record_of,
    write_report,
)
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.kit.trunk import TRUNK_STAGE
from feldspar.prepare.stages import State, stages_of
from feldspar.recipe.load import load_recipe
from feldspar.report.figures import Series, line_figure
from feldspar.report.page import Section
from feldspar.study.trials import Trial
from tests.train.conftest import RECIPE, metrics_of, recipe_file, shards_folder

__all__ = ["recipe_file", "shards_folder"]

CLAIMS = """
title: Tiny
arxiv: "0000.00000"
notes: [A note.]
claims:
  - id: falls
    statement: It <falls> | a lot.
    paper: 1 %
    source: table 1
    tolerance: any
    held: Seen.
    failed: Not seen.
  - {id: never-measured, statement: s, paper: p, source: q, tolerance: t, held: h, failed: f}
"""
SECTIONS = """
corpus: {{path: {documents}, sources: {{prose: {{reader: text, path: nowhere}}}}}}
tokenizer: {{type: train_bpe, vocab_size: 300}}
"""


def paper_of(recipe: Path, documents: Path) -> Paper:
    """A paper of two stages over the tiny recipe; the second goes by the first."""
    text = recipe.read_text() + SECTIONS.format(documents=documents)
    full = recipe.with_name("full.yaml")
    full.write_text(text)

    def second(results: Results) -> list[Trial]:
        best = min(results.get("rates", ()), key=lambda run: run.score, default=None)
        chosen = () if best is None else best.trial.overrides
        return [Trial("again", (*chosen, "seed=7"))]

    def measure(results: Results, scale: Scale) -> Figures:
        scores = [run.score for stage in results.values() for run in stage]
        return {"scores": [*scores, float("inf")]}

    def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
        *scores, diverged = figures["scores"]
        assert diverged == float("inf")
        figure = line_figure("Scores", [Series("", range(len(scores)), scores)], "run", "loss")
        claim = claims.judged("falls", f"{scores[0]:.3f}", held=scores[-1] < 6)
        missing = claims.unrecorded("never-measured")
        return Findings((claim, missing), (Section("Scores", figures=[figure]),), figure)

    rates = [
        Trial(f"rate-{rate}", (f"parametrization.learning_rate={rate}",)) for rate in (1, 0.01)
    ]
    stages = (
        Stage("rates", str(full), lambda _: rates),
        Stage("chosen", str(full), second, keeps_weights=True),
    )
    (recipe.parent / "claims.yaml").write_text(CLAIMS)
    return Paper("tiny", recipe.parent, Data(str(full)), lambda _: stages, measure, judge)


def test_stages_follow_each_other_and_the_same_call_continues(
    recipe_file: Path, tmp_path: Path
) -> None:
    paper, out = paper_of(recipe_file, tmp_path / "documents"), tmp_path / "out"
    first = run_experiment(paper, Scale.QUICK, out, workers=1)
    chosen = first.results["chosen"][0]
    assert values_of(chosen.trial) == {"parametrization.learning_rate": 0.01, "seed": 7}
    assert not (out / "trials" / "rates" / "rate-1" / "checkpoints").exists()
    assert (chosen.folder / "checkpoints").is_dir()

    shutil.rmtree(chosen.folder)
    events = out / "trials" / "rates" / "rate-1" / "events.jsonl"
    written = events.read_bytes()
    again = run_experiment(paper, Scale.QUICK, out, workers=1)
    assert events.read_bytes() == written, "a finished run is not touched"
    assert [run.score for run in again.runs] == [run.score for run in first.runs]
    assert again.wall_seconds > first.wall_seconds

    record = write_report(again, out)
    assert record == json.loads((out / "claims.json").read_text())
    assert (record["runs"], record["seeds"], record["diverged"]) == (3, [0, 7], 0)
    assert record["figures"]["scores"][-1] is None
    assert record["machine"]["cores"] >= 1 and record["trained_tokens"] > 0
    page = (out / "report.html").read_text()
    assert "It &lt;falls&gt; | a lot." in page and "<svg" in page
    assert "It <falls> \\| a lot." in (out / "claims.md").read_text()
    assert (out / "claims.svg").read_text().startswith("<svg")
    assert "A note." not in page, "notes are about the small experiment"
    assert record["claims"][0]["verdict"] == "no verdict", "it is a quick run of one seed"
    judged_anew(paper, out, record)

    run = chosen.folder
    switch = phase_switch(run)
    assert (switch.step, switch.updates, switch.steps) == (24, 36, 36)
    assert switch.is_continuous
    curve = loss_by_position(run, length_tokens=16, sequences=4)
    losses = metrics_of(run)
    assert curve.shape == (16,) and abs(curve.mean() - losses[-1]["train/loss"]) < 1


def test_a_stage_runs_again_and_a_record_gives_the_other_figures(
    recipe_file: Path, tmp_path: Path
) -> None:
    whole = paper_of(recipe_file, tmp_path / "documents")
    first, *_ = whole.stages(Scale.QUICK)

    def measure(results: Results, scale: Scale) -> Figures:
        found = {name: [run.score for run in runs] for name, runs in results.items()}
        return {"scores": [*found["rates"], float("inf")]} if "rates" in found else {}

    paper = replace(
        whole, measure=measure, stages=lambda _: (first,), separate=frozenset({"rates"})
    )
    before = {
        "date": "2020-01-01", "machine": machine(), "runs": 12, "seeds": [0], "workers": 2,
        "trained_tokens": 9, "wall_seconds": 60.0, "figures": {"scores": [1.0], "other": 3},
    }  # fmt: skip
    again = Again(("rates",), before)
    found = run_experiment(paper, Scale.QUICK, tmp_path / "out", workers=1, again=again)
    assert found.figures["other"] == 3 and len(found.figures["scores"]) == 3
    paper = replace(paper, stages=whole.stages)
    record = write_report(replace(found, paper=paper), tmp_path / "out")
    [kept] = record["kept"]
    assert kept["stages"] == ["chosen"] and kept["runs"] == 12 and record["runs"] == 2
    assert "Not run again: chosen, of an earlier record: 12 runs" in circumstances(record)
    later = Again(("rates",), record)
    assert kept_of(replace(found, paper=paper, again=later))["kept"] == [kept]
    assert "kept" not in record_of(replace(found, again=None))
    with pytest.raises(UserError, match="no stage 'chosen' that can run without"):
        run_experiment(
            paper, Scale.QUICK, tmp_path / "new", workers=1, again=Again(("chosen",), before)
        )
    assert not (tmp_path / "new").exists()


def test_a_record_of_an_earlier_design_keeps_its_claims_and_says_so(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "docs" / "results" / "supar.json"
    record = json.loads(source.read_text(encoding="utf-8")) | {"design": 1}
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(record | {"figures": {}}), encoding="utf-8")
    paper = PAPERS["supar"]
    stated = paper.stated.model_copy(update={"designs": {"small": 2}})
    later = replace(paper)
    vars(later)["stated"] = stated
    assert (later.design(Scale.QUICK), later.design(Scale.OPEN)) == (2, 1)
    judged = judge_again(later, path)
    assert judged["outdated"] and judged["claims"] == record["claims"]
    assert "of an earlier design" in path.with_suffix(".md").read_text(encoding="utf-8")
    assert not path.with_suffix(".svg").exists()
    with pytest.raises(UserError, match="lacks the figure"):
        judge_again(paper, path)


def judged_anew(paper: Paper, out: Path, record: dict[str, Any]) -> None:
    """A record gives the same files again, by rules that may have changed meanwhile."""
    names = ("claims.json", "claims.md", "claims.svg", "report.html")
    before = {name: (out / name).read_bytes() for name in names}
    better = record["claims"][0] | {"verdict": "reproduced", "ours": "better"}
    changed = record | {"scale": "small", "claims": [better], "notes": []}
    (out / "claims.json").write_text(json.dumps(changed))
    again = judge_again(paper, out / "claims.json")
    assert [claim["verdict"] for claim in again["claims"]] == ["mechanism shown", "no verdict"]
    assert again["figures"] == record["figures"] and again["notes"] == ["A note."]
    assert "<p>A note.</p>" in (out / "report.html").read_text()
    assert "\nA note.\n" in (out / "claims.md").read_text()
    (out / "claims.json").write_text(json.dumps(changed | {"scale": "quick"}))
    judge_again(paper, out / "claims.json")
    assert {name: (out / name).read_bytes() for name in names} == before


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    with pytest.raises(UserError, match=r"claims\.json cannot be read"):
        judge_again(PAPERS["supar"], path)
    for text, words in (
        ("{", "no JSON file"),
        ("[]", "no record"),
        ('{"paper": "x"}', "no record"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            judge_again(PAPERS["supar"], path)
    path.write_text(json.dumps({"paper": "btlm", "scale": "small", "claims": [], "figures": {}}))
    with pytest.raises(UserError, match="records another paper") as caught:
        judge_again(PAPERS["supar"], path)
    assert caught.value.do == f"feldspar reproduce btlm --judge {path}"
    path.write_text(json.dumps({"paper": "supar", "scale": "small", "claims": [], "figures": {}}))
    with pytest.raises(UserError, match="lacks the figure 'cells'"):
        judge_again(PAPERS["supar"], path)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    supar, btlm = PAPERS["supar"], PAPERS["btlm"]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds no experiment"):
        open_folder(foreign, supar, Scale.QUICK)
    ours = tmp_path / "ours"
    open_folder(ours, supar, Scale.QUICK)
    open_folder(ours, supar, Scale.QUICK)
    with pytest.raises(UserError, match="holds another experiment"):
        open_folder(ours, supar, Scale.SMALL)
    with pytest.raises(UserError, match="holds another experiment"):
        open_folder(ours, btlm, Scale.QUICK)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="holds no experiment"):
        open_folder(tmp_path / "file", supar, Scale.QUICK)


ON_TEXT = [name for name in PAPERS if name != "revbifpn"]
"""Papers whose data are built; images are put in their place by hand."""


LATER = {
    "bilingual/small": {"start_from", "tokenizer", "shards"},
    "composition/small": {"tokenizer", "shards"},
}
"""Stages of a recipe that are made from the data before them."""


@pytest.mark.parametrize("name", ON_TEXT)
def test_every_experiment_builds_the_data_that_it_lacks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, *others = (PAPERS[name].data, *PAPERS[name].more_data)
    for data in (first, *others):
        stages = stages_of(load_recipe(data.recipe, list(data.overrides)))
        missing = {stage.name for stage in stages if stage.state is State.MISSING}
        # A vocabulary is that of the documents built first, or is extended from it.
        later = LATER.get(data.recipe, set()) if data in others else set()
        assert missing <= later, data


def test_an_unknown_paper_names_the_nearest() -> None:
    assert paper_named("btlm").stated.arxiv == "2309.11568"
    with pytest.raises(UserError, match="did you mean 'cerebras-gpt'"):
        paper_named("cerebras")


@pytest.mark.parametrize("name", PAPERS)
def test_every_quick_experiment_plans_to_minutes(name: str) -> None:
    stages = planned_costs(PAPERS[name], Scale.QUICK)
    costs = [cost for stage in stages.values() for cost in stage]
    assert 0 < sum(cost.core_seconds for cost in costs) / 2 < 5 * 60
    assert len({cost.name for cost in costs}) == len(costs)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [Scale.SMALL, Scale.PAPER])
@pytest.mark.parametrize("name", PAPERS)
def test_every_experiment_plans(name: str, scale: Scale) -> None:
    stages = planned_costs(PAPERS[name], scale)
    # Trunks are trained once for all experiments.
    costs = [cost for stage in stages if stage != TRUNK_STAGE for cost in stages[stage]]
    if scale is Scale.SMALL:
        assert sum(cost.core_seconds for cost in costs) / 2 < 75 * 60
    else:
        assert sum(cost.flops for cost in costs) > 1e18


def test_the_recipe_of_these_tests_is_the_tiny_one() -> None:
    assert "name: tiny" in RECIPE


@pytest.mark.parametrize(
    ("paper", "named", "needed"),
    [
        ("gns", "reading", ["gns/small", "trunk"]),  # the baselines read the first
        ("gns", "exact", ["gns/small"]),
        ("cerebras-gpt", "widths", ["cerebras-gpt/small"]),
        ("slimpajama-dc", "mixtures", ["slimpajama-dc/small"]),
    ],
)
def test_stages_that_run_alone_have_the_data_that_is_read(
    paper: str, named: str, needed: list[str]
) -> None:
    chosen = PAPERS[paper]
    stages = Again((named,), {}).runs(chosen, Scale.SMALL)
    assert [data.recipe for data in needed_data(chosen, Scale.SMALL, stages)] == needed
