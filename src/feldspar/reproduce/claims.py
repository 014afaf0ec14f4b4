"""Claims: what a paper says beside what was measured here, with one of three verdicts.

There is no fourth verdict and no verdict on what was not run. A claim that was looked at and not
borne out at this scale is ``needs scale`` too, with our contrary figure printed as it is.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What can honestly be said of a claim."""

    REPRODUCED = "reproduced"
    """The paper's own quantity, within the stated tolerance of the paper's figure."""
    MECHANISM_SHOWN = "mechanism shown"
    """The cause behind the claim, measured on a small model."""
    NEEDS_SCALE = "needs scale"
    """Not run here, or run and not borne out; what the paper's scale would cost is stated."""


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
    """What had to hold for a better verdict."""
    reason: str
    borne_out: bool | None
    """Whether it held here; None: it was not looked at."""
    cost: str = ""
    """What it would take to settle it, where the verdict is needs scale."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for claims.json."""
        return asdict(self) | {"verdict": self.verdict.value}


def judged(
    name: str,
    *,
    statement: str,
    paper: str,
    ours: str,
    tolerance: str,
    held: bool,
    same_quantity: bool,
    why: str,
    why_not: str,
    cost: str = "",
) -> Claim:
    """A claim that was looked at: ``held`` says whether our figure meets ``tolerance``.

    Only the paper's own quantity can be reproduced; of another one (another model, text or size)
    the mechanism is shown. What did not hold needs scale, whatever was hoped for. ``why`` and
    ``why_not`` give the grounds in either case.
    """
    if held:
        verdict = Verdict.REPRODUCED if same_quantity else Verdict.MECHANISM_SHOWN
        return Claim(name, statement, paper, ours, verdict, tolerance, why, True)
    words = f"Not borne out here. {why_not}"
    return Claim(name, statement, paper, ours, Verdict.NEEDS_SCALE, tolerance, words, False, cost)


def not_run(name: str, *, statement: str, paper: str, reason: str, cost: str) -> Claim:
    """A claim that nothing here speaks to."""
    return Claim(
        name, statement, paper, "not run", Verdict.NEEDS_SCALE, "not run", reason, None, cost
    )


def counts(claims: Sequence[Claim]) -> dict[str, int]:
    """How many claims have each verdict, all three named."""
    return {verdict.value: sum(claim.verdict is verdict for claim in claims) for verdict in Verdict}
