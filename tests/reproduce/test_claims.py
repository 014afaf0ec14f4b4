"""Three verdicts, never a fourth, and none for what was not run."""

import json

import pytest

from feldspar.reproduce.claims import Claim, Verdict, counts, judged, not_run


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
        (False, True, Verdict.NEEDS_SCALE),
        (False, False, Verdict.NEEDS_SCALE),
    ],
)
def test_the_verdict_follows_from_the_figure_and_what_it_is_of(
    held: bool, same_quantity: bool, verdict: Verdict
) -> None:
    assert claim(held, same_quantity).verdict is verdict


def test_a_contrary_figure_is_printed_as_it_is() -> None:
    found = claim(held=False, same_quantity=True)
    assert found.ours == "-0.3 %"
    assert found.reason == "Not borne out here. It is higher."
    assert found.cost == "1 run" and found.borne_out is False


def test_what_was_not_run_says_so() -> None:
    found = not_run("x", statement="s", paper="p", reason="r", cost="c")
    assert (found.verdict, found.ours, found.borne_out) == (Verdict.NEEDS_SCALE, "not run", None)


def test_the_verdicts_are_those_three() -> None:
    assert [verdict.value for verdict in Verdict] == [
        "reproduced",
        "mechanism shown",
        "needs scale",
    ]
    found = counts([claim(True, True), claim(False, True)])
    assert found == {"reproduced": 1, "mechanism shown": 0, "needs scale": 1}
    assert json.loads(json.dumps(claim(True, True).as_dict()))["verdict"] == "reproduced"
