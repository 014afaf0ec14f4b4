"""Four verdicts; a quick run has them only on what is counted; recorded claims stand in."""

import json
from dataclasses import replace

import pytest

from feldspar.papers.kit.claims import (
    Claim,
    Verdict,
    counts,
    judged,
    not_run,
    unrecorded,
    with_recorded,
    without_verdict,
)


def claim(held: bool, same_quantity: bool) -> Claim:
    return judged(
        "x",
        statement="It is lower.",
        paper="1 %",
        ours="-0.3 %",
        tolerance="lower",
        held=held,
        same_quantity=same_quantity,
        why="Because.",
        why_not="It is higher.",
        cost="1 run",
    )


@pytest.mark.parametrize(
    ("held", "same_quantity", "verdict"),
    [
        (True, True, Verdict.REPRODUCED),
        (True, False, Verdict.MECHANISM_SHOWN),
        (False, True, Verdict.NOT_BORNE_OUT),
        (False, False, Verdict.NOT_BORNE_OUT),
    ],
)
def test_the_verdict_follows_from_the_figure_and_what_it_is_of(
    held: bool, same_quantity: bool, verdict: Verdict
) -> None:
    assert claim(held, same_quantity).verdict is verdict


def test_a_contrary_figure_is_printed_as_it_is() -> None:
    found = claim(held=False, same_quantity=True)
    assert found.ours == "-0.3 %"
    assert found.reason == "It is higher."
    assert found.cost == "1 run" and found.borne_out is False


def test_what_was_not_run_says_so() -> None:
    found = not_run("x", statement="s", paper="p", reason="r", cost="c")
    assert (found.verdict, found.ours, found.borne_out) == (Verdict.NEEDS_SCALE, "not run", None)


def test_the_verdicts_are_those_four() -> None:
    four = ["reproduced", "mechanism shown", "not borne out", "needs scale"]
    assert [verdict.value for verdict in Verdict] == [*four, "no verdict"]
    found = counts([claim(True, True), claim(False, True)])
    assert found == dict(zip(four, (1, 0, 1, 0), strict=True))
    read = json.loads(json.dumps(claim(True, True).as_dict()))
    assert read["verdict"] == "reproduced" and Claim.from_dict(read) == claim(True, True)


def test_a_quick_run_judges_only_what_no_seed_moves() -> None:
    for held in (True, False):
        found = without_verdict(claim(held, same_quantity=False))
        assert (found.verdict, found.borne_out) == (Verdict.NO_VERDICT, None)
        assert found.ours == "-0.3 %" and "too few for a verdict" in found.reason
        counted = replace(claim(held, same_quantity=False), counted=True)
        assert without_verdict(counted) == counted
    missing = not_run("x", statement="s", paper="p", reason="r", cost="c")
    assert without_verdict(missing) == missing
    assert counts([without_verdict(claim(True, True))])["no verdict"] == 1


def test_a_claim_without_figures_keeps_its_recorded_judgement() -> None:
    recorded = claim(held=True, same_quantity=False)
    for _ in range(2):
        [recorded] = with_recorded([unrecorded("x")], [recorded])
        assert recorded.verdict is Verdict.MECHANISM_SHOWN and recorded.ours == "-0.3 %"
        assert recorded.reason == (
            "Because. Judged when it was run: its figures were not recorded."
        )
    again = claim(held=False, same_quantity=False)
    assert with_recorded([again], [recorded]) == (again,)
