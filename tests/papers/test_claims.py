"""Claims by their file: verdicts, words, refusals; quick runs; recorded claims that stand in."""

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from feldspar.papers.kit.claims import (
    Claim,
    Verdict,
    counts,
    unrecorded,
    with_recorded,
    without_verdict,
)
from feldspar.papers.kit.stated import PaperClaims, StatedClaims

RULES: dict[str, Any] = {
    "id": "x",
    "statement": "It is lower.",
    "paper": "1 %",
    "source": "table 1",
    "limits": {"noise": 0.005},
    "tolerance": "lower by {noise:.1%}",
    "held": "Because of {cause}.",
    "failed": "It is higher.",
    "more_readings": {"level": "It is level."},
    "cost": "runs",
}
NOT_RUN_HERE = {
    "id": "y",
    "statement": "s",
    "paper": "p",
    "source": "abstract",
    "not_run": "Too small.",
    "cost": "runs",
}


def claims_of(*claims: dict[str, Any], at_paper_scale: bool = False) -> StatedClaims:
    file = PaperClaims.model_validate({"title": "T", "arxiv": "1.2", "claims": list(claims)})
    return StatedClaims(file, at_paper_scale, lambda runs: f"cost of {runs}")


def claim(held: bool, same: str = "never", reading: str = "", near_figure: bool = True) -> Claim:
    return claims_of({**RULES, "same_quantity": same}, at_paper_scale=True).judged(
        "x", "-0.3 %", held=held, reading=reading, near_figure=near_figure, cause="x"
    )


@pytest.mark.parametrize(
    ("held", "same", "verdict"),
    [
        (True, "always", Verdict.REPRODUCED),
        (True, "at paper scale", Verdict.REPRODUCED),
        (True, "never", Verdict.MECHANISM_SHOWN),
        (False, "always", Verdict.NOT_BORNE_OUT),
        (False, "never", Verdict.NOT_BORNE_OUT),
    ],
)
def test_the_verdict_follows_from_the_figure_and_what_it_is_of(
    held: bool, same: str, verdict: Verdict
) -> None:
    assert claim(held, same).verdict is verdict
    away = claim(True, same, near_figure=False)
    assert away.verdict is Verdict.MECHANISM_SHOWN, "it holds, by another figure"


def test_a_small_experiment_does_not_reproduce_what_needs_the_papers_scale() -> None:
    small = claims_of({**RULES, "same_quantity": "at paper scale"})
    assert small.judged("x", "o", held=True, cause="x").verdict is Verdict.MECHANISM_SHOWN


def test_the_words_are_those_of_the_file() -> None:
    found = claim(held=True)
    assert (found.paper, found.tolerance) == ("1 % (table 1)", "lower by 0.5%")
    assert (found.reason, found.cost) == ("Because of x.", "")
    assert claim(held=False, reading="level").reason == "It is level."


def test_a_contrary_figure_is_printed_as_it_is() -> None:
    found = claim(held=False, same="always")
    assert found.ours == "-0.3 %"
    assert found.reason == "It is higher."
    assert found.cost == "cost of runs" and found.borne_out is False


def test_what_was_not_run_says_so_in_its_place() -> None:
    claims = claims_of(NOT_RUN_HERE, RULES)
    judged = claims.judged("x", "o", held=False)
    first, second = claims.all_claims((judged,), quick=False)
    assert (first.verdict, first.ours) == (Verdict.NEEDS_SCALE, "not run")
    assert (first.borne_out, first.reason, first.cost) == (None, "Too small.", "cost of runs")
    assert second == judged
    assert claims.all_claims((judged,), quick=True)[1].verdict is Verdict.NO_VERDICT
    assert claims.all_claims((), quick=False) == (first,), "at another scale it is not judged"


@pytest.mark.parametrize(
    "changed",
    [
        {"failed": ""},
        {"tolerance": ""},
        {"not_run": "Too small."},
        {"reading": "x"},
        {"source": None},
        {"limits": {"noise": "0.5 %"}},
        {"same_quantity": "often"},
    ],
)
def test_a_claim_that_lacks_a_word_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        claims_of({**RULES, **changed})


def test_two_claims_with_one_id_are_refused() -> None:
    with pytest.raises(ValidationError, match="two claims have one id"):
        claims_of(RULES, RULES)


def test_the_verdicts_are_those_four() -> None:
    four = ["reproduced", "mechanism shown", "not borne out", "needs scale"]
    assert [verdict.value for verdict in Verdict] == [*four, "no verdict"]
    found = counts([claim(True, "always"), claim(False)])
    assert found == dict(zip(four, (1, 0, 1, 0), strict=True))
    read = json.loads(json.dumps(claim(True, "always").as_dict()))
    assert read["verdict"] == "reproduced" and Claim.from_dict(read) == claim(True, "always")


def test_a_quick_run_judges_only_what_no_seed_moves() -> None:
    for held in (True, False):
        found = without_verdict(claim(held))
        assert (found.verdict, found.borne_out) == (Verdict.NO_VERDICT, None)
        assert found.ours == "-0.3 %" and "too few for a verdict" in found.reason
        counted = replace(claim(held), counted=True)
        assert without_verdict(counted) == counted
    [missing] = claims_of(NOT_RUN_HERE).all_claims((), quick=False)
    assert without_verdict(missing) == missing
    assert counts([without_verdict(claim(True, "always"))])["no verdict"] == 1


def test_a_claim_without_figures_keeps_its_recorded_judgement() -> None:
    recorded = claim(held=True)
    for _ in range(2):
        [recorded] = with_recorded([unrecorded("x")], [recorded])
        assert recorded.verdict is Verdict.MECHANISM_SHOWN and recorded.ours == "-0.3 %"
        assert recorded.reason == (
            "Because of x. Judged when it was run: its figures were not recorded."
        )
    again = claim(held=False)
    assert with_recorded([again], [recorded]) == (again,)
