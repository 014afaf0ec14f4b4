"""One page of all recorded claims: what it says, and what it leaves as it was."""

import json
import shutil
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.papers.catalogue import PAPERS
from feldspar.papers.kit.claims import Claim, Verdict
from feldspar.papers.kit.compact import CELL_CHARACTERS, compact, intervals
from feldspar.papers.kit.stated import EarlierFigure
from feldspar.papers.results_page import (
    BEGIN,
    END,
    FAILED_AT_FIRST,
    FAILED_SINCE,
    Recorded,
    is_earlier,
    page_with,
    read_records,
    write_page,
)

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def claim_of(ours: str, short: str = "", counted: bool = False) -> Claim:
    """A claim with a figure of ours."""
    verdict = Verdict.MECHANISM_SHOWN
    return Claim("one", "s", "p", ours, verdict, "t", "r", True, counted=counted, short=short)


def test_the_committed_page_is_what_the_records_say() -> None:
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert page_with(text, read_records(RESULTS), RESULTS) == text, "feldspar results docs/results"


def test_every_record_says_its_day() -> None:
    assert all(len(own.values["date"]) == len("2026-11-28") for own in read_records(RESULTS))


def test_claims_that_had_failed_are_all_told() -> None:
    """Their names are those of today's claims, so that none is lost when a claim is renamed."""
    assert sum(map(len, FAILED_AT_FIRST.values())) == 18
    for failed in (FAILED_AT_FIRST, FAILED_SINCE):
        for paper, names in failed.items():
            assert set(names) <= {claim.id for claim in PAPERS[paper].stated.claims}, paper


def test_intervals_stand_apart_from_the_figure() -> None:
    claim = claim_of(
        "2.10 against 2.20, 4.5% lower (+- 2.5% over 3 seeds) (a true difference of 3.00% is found "
        "in 80% of cases); right labels +1.7 points (+- 2.0)"
    )
    assert compact(claim) == "2.10 against 2.20, 4.5% lower; right labels +1.7 points"
    assert intervals(claim) == "2.0 to 7.0% lower; -0.3 to 3.7 points"
    assert intervals(claim_of("7")) == "-"
    assert intervals(claim_of("7", counted=True)) == "counted"


def test_a_long_figure_is_cut_at_the_end_of_a_clause() -> None:
    clause = "a clause, of two parts"
    cut = compact(claim_of("; ".join([clause] * 20)))
    assert cut.endswith(f"{clause} ...") and len(cut) <= CELL_CHARACTERS + 4
    hidden = claim_of("; ".join(["4.5% (+- 2.5%)", *[clause] * 20, "7.0% (+- 1.0%)"]))
    assert intervals(hidden) == "2.0 to 7.0%", "the other one stands in no cell"
    listed = compact(claim_of(", ".join(["value 1.5"] * 40)))
    assert listed.endswith("value 1.5 ...") and len(listed) <= CELL_CHARACTERS + 4
    assert compact(claim_of("; ".join([clause] * 20), short="two parts")) == "two parts"


def test_a_figure_that_was_not_measured_again_is_no_figure_of_today() -> None:
    own = Recorded(RESULTS / "x.json", {"scale": "small"})
    earlier = EarlierFigure(figure="0.77 % lower (+- 2.51%): not borne out", why="too small")
    assert is_earlier(own, claim_of("lower by 0.77 %"), earlier)
    assert not is_earlier(own, claim_of("lower by 0.78 %"), earlier)
    assert is_earlier(own, claim_of("0.78 %"), None)
    assert not is_earlier(Recorded(own.path, {"scale": "open"}), claim_of("0.78 %"), None)
    outdated = Recorded(own.path, {"scale": "open", "outdated": True})
    assert is_earlier(outdated, claim_of("0.78 %"), earlier)


def test_words_around_the_claims_stay(tmp_path: Path) -> None:
    shutil.copy(RESULTS / "supar.json", tmp_path)
    page = write_page(tmp_path)
    assert "[SmuPar: sparse maximal update parametrization](supar.md)" in page.read_text()
    before = f"# Mine\n\n{BEGIN}\nold\n{END}\n\nMy words.\n"
    page.write_text(before)
    text = write_page(tmp_path).read_text()
    assert text.startswith("# Mine\n") and text.endswith("\n\nMy words.\n")
    assert "old" not in text.splitlines()
    again = write_page(tmp_path).read_text()
    assert again == text


def test_folders_of_experiments_are_read_and_quick_ones_have_no_failed_claims(
    tmp_path: Path,
) -> None:
    record = json.loads((RESULTS / "supar.json").read_text()) | {"scale": "quick"}
    (tmp_path / "supar-quick").mkdir()
    (tmp_path / "supar-quick" / "claims.json").write_text(json.dumps(record))
    (tmp_path / "other.json").write_text("[]")
    text = write_page(tmp_path).read_text()
    assert "parametrization, quick scale](supar-quick/claims.md)" in text
    assert "## Claims that had failed" not in text


def test_a_page_of_another_kind_and_a_folder_without_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no record"):
        write_page(tmp_path)
    shutil.copy(RESULTS / "supar.json", tmp_path)
    (tmp_path / "README.md").write_text("# Notes\n")
    with pytest.raises(UserError, match="another kind"):
        write_page(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Notes\n"
