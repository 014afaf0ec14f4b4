"""Claims: what a paper says beside what was measured here, with one of four verdicts.

A claim that was run here and failed is ``not borne out``; one that was not run ``needs scale``. A
quick run gives no verdict on anything that a seed moves.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The verdicts on a claim."""

    REPRODUCED = "reproduced"
    """The paper's own quantity, within the stated tolerance of the paper's figure."""
    MECHANISM_SHOWN = "mechanism shown"
    """The cause behind the claim, measured on a small model."""
    NOT_BORNE_OUT = "not borne out"
    """Run here, and it failed; our contrary figure is printed as it is."""
    NEEDS_SCALE = "needs scale"
    """Not run here; the cost at the paper's scale is stated."""
    NO_VERDICT = "no verdict"
    """Looked at in a quick run only, which is too little to judge by."""


@dataclass(frozen=True)
class Claim:
    """One statement of a paper, its figure, ours, and the verdict with its grounds."""

    name: str
    statement: str
    paper: str
    """The paper's figure as printed there."""
    ours: str
    """Our figure, favourable or not."""
    verdict: Verdict
    tolerance: str
    """The condition under which the claim holds."""
    reason: str
    borne_out: bool | None
    """True or False for a claim that was judged; None for one that was not."""
    cost: str = ""
    """Cost of the paper's own runs, where the claim was not shown."""
    counted: bool = False
    """Our figure is counted or computed, so that no seed moves it."""
    short: str = ""
    """Our figure for a page of many claims, where ``ours`` is long; its baseline stands in it."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for claims.json; an empty ``short`` is left out."""
        values = asdict(self) | {"verdict": self.verdict.value}
        if not self.short:
            del values["short"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Claim":
        """Read a claim that ``as_dict`` wrote."""
        return cls(**(values | {"verdict": Verdict(values["verdict"])}))


NOT_RUN = "not run"
UNRECORDED = "its figures were not recorded"


def unrecorded(name: str) -> Claim:
    """Stand in for a claim whose figures a record lacks; the record's own claim replaces it."""
    return Claim(name, "", "", UNRECORDED, Verdict.NO_VERDICT, "", UNRECORDED, None)


def with_recorded(claims: Sequence[Claim], recorded: Sequence[Claim]) -> tuple[Claim, ...]:
    """Put the recorded claims in the places of those that could not be judged again."""
    known = {claim.name: claim for claim in recorded if claim.ours != UNRECORDED}
    return tuple(
        _as_recorded(known[own.name]) if own.ours == UNRECORDED and own.name in known else own
        for own in claims
    )


def _as_recorded(claim: Claim) -> Claim:
    note = f"Judged when it was run: {UNRECORDED}."
    reason = claim.reason if claim.reason.endswith(note) else f"{claim.reason} {note}"
    return replace(claim, reason=reason)


QUICK_REASON = (
    "One seed and shortened runs are too few for a verdict: only what is counted, which no seed "
    "moves, has one."
)


def without_verdict(claim: Claim) -> Claim:
    """Return the claim as a quick run may print it: its figure, and a verdict only if counted."""
    if claim.counted or claim.verdict is Verdict.NEEDS_SCALE or claim.ours == UNRECORDED:
        return claim
    return replace(claim, verdict=Verdict.NO_VERDICT, borne_out=None, reason=QUICK_REASON, cost="")


def counts(claims: Sequence[Claim]) -> dict[str, int]:
    """Count the claims of each verdict; all four are named, ``no verdict`` only where it occurs."""
    found = {verdict.value: sum(own.verdict is verdict for own in claims) for verdict in Verdict}
    if not found[Verdict.NO_VERDICT]:
        del found[Verdict.NO_VERDICT.value]
    return found
