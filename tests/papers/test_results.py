"""The pages of docs/results equal what today's code says of the recorded figures."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from feldspar.papers.catalogue import PAPERS
from feldspar.papers.kit.paper import Scale, numbers
from feldspar.papers.kit.report import judged_record, read_record, summary

OPEN_MODELS = {"bilingual-open": "bilingual"}
"""Records of experiments on open models, with their papers."""
OF_THE_TEN = [name for name in PAPERS if name not in ("granularity", "composition")]
"""Papers of the README's table; the other two experiments ask questions of ours."""
RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.mark.parametrize("record_name", [*PAPERS, *OPEN_MODELS])
def test_a_committed_result_is_what_its_figures_say(record_name: str) -> None:
    name = OPEN_MODELS.get(record_name, record_name)
    path = RESULTS / f"{record_name}.json"
    record = read_record(PAPERS[name], path)
    again, _ = judged_record(PAPERS[name], record)
    advice = f"feldspar reproduce {name} --judge docs/results/{record_name}.json"
    assert json.loads(json.dumps(again)) == record, advice
    assert path.with_suffix(".md").read_text(encoding="utf-8") == summary(record), advice
    assert path.with_suffix(".svg").is_file()


@pytest.mark.parametrize("name", PAPERS)
def test_the_experiment_judges_what_the_file_states(name: str) -> None:
    """It judges every claim of claims.yaml that is not marked as not run, and no other.

    A claim may be judged on an open model only.
    """
    paper = PAPERS[name]
    names = [name, *(own for own, of in OPEN_MODELS.items() if of == name)]
    records = [json.loads((RESULTS / f"{own}.json").read_text("utf-8")) for own in names]
    if any(record.get("outdated") for record in records):
        pytest.skip("the record is of an earlier design")
    claims, found = paper.claims_at(Scale.SMALL), set()
    for record in records:
        scale = Scale(record["scale"])
        judged = paper.judge(numbers(record["figures"]), scale, paper.claims_at(scale)).claims
        found |= {claim.name for claim in judged}
    assert found == {claim.id for claim in paper.stated.claims if not claim.not_run}
    costs = {claim.cost for claim in paper.stated.claims if claim.cost}
    assert all("H100 hours" in claims.cost_of(runs) for runs in costs)


def rows_of_readme() -> list[list[str]]:
    """The cells of the table of papers."""
    lines = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8").splitlines()
    table = lines[lines.index("## The ten papers") :]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table
        if line.startswith("| ") and not line.startswith("| paper")
    ]


@pytest.mark.parametrize("name", OF_THE_TEN)
def test_the_readme_says_what_the_results_say(name: str) -> None:
    """Its counts of verdicts are those of the record."""
    verdicts = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["verdicts"]
    words = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items() if count)
    [status] = [row[2] for row in rows_of_readme() if f"`feldspar reproduce {name}`" in row]
    assert status == f"[{words}](docs/results/{name}.md)"


def test_the_readme_has_ten_papers_in_short_cells() -> None:
    rows = rows_of_readme()
    assert len(rows) == 10
    for row in rows:
        assert all(len(cell.split()) <= 20 for cell in row), row[0]


def test_the_readme_names_what_needs_no_model_beside_mediswifts() -> None:
    figures = json.loads((RESULTS / "mediswift.json").read_text(encoding="utf-8"))["figures"]
    accuracy = {name: fmean(values) for name, values in figures["accuracy"].items()}
    beside = figures["without_a_model"]["bag of words of each name"]
    named = (accuracy["75%"], accuracy["dense"], beside)
    [row] = [row[1] for row in rows_of_readme() if row[0].startswith("MediSwift")]
    for value in named:
        assert f"{100 * value:.1f} %" in row
