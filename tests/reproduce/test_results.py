"""What docs/results holds is what the code of today says of the recorded figures."""

import json
from pathlib import Path

import pytest

from feldspar.reproduce import PAPERS
from feldspar.reproduce.report import judged_record, read_record, summary

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.mark.parametrize("name", PAPERS)
def test_a_committed_result_is_what_its_figures_say(name: str) -> None:
    path = RESULTS / f"{name}.json"
    record = read_record(PAPERS[name], path)
    again, _ = judged_record(PAPERS[name], record)
    advice = f"feldspar reproduce {name} --judge docs/results/{name}.json"
    assert json.loads(json.dumps(again)) == record, advice
    assert path.with_suffix(".md").read_text(encoding="utf-8") == summary(record), advice
    assert path.with_suffix(".svg").is_file()
