"""The order of the text: language first and then code, against one mixture and against code alone.

All arms are trained from random weights and read text from left to right. The pooled arm reads the
tokens of both phases in one mixture; the arm with code alone reads the code tokens of both phases.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from feldspar.papers.crystal.kinds import BOTH_KINDS, CODE_KIND, KINDS, KindBits
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain, power
from feldspar.papers.kit.stated import StatedClaims
from feldspar.report.canvas import Figure
from feldspar.report.figures import Series, half_widths_of, line_figure

PHASED, POOLED, CODE_ALONE = "phased", "pooled", "code-alone"
ORDERS = (PHASED, POOLED, CODE_ALONE)
"""The arms by the recipe's choice of order."""


def steady_claim(
    phases: Mapping[str, KindBits], curve: Sequence[KindBits], claims: StatedClaims
) -> Claim:
    """Judge the gain of both kinds in the second phase, and the fall of their mean all along.

    ``phases`` holds the ends of the phases, ``curve`` all validations.
    """
    (first, second), names = list(phases.values())[:2], list(phases)[:2]
    gains = {kind: Gain.of(second[kind], first[kind]) for kind in KINDS}
    falls = [Gain.of(now[BOTH_KINDS], before[BOTH_KINDS]) for before, now in pairwise(curve)]
    least = min(falls, key=lambda fall: fall.low)
    told = "; ".join(
        f"{kind}: {fmean(first[kind]):.4f} after phase {names[0]}, {fmean(second[kind]):.4f} "
        f"after phase {names[1]} ({gain.lower_or_higher})"
        for kind, gain in gains.items()
    )
    falling = sum(fall.low > 0 for fall in falls)
    noise = claims.limit("both-phases-help-both-kinds", "noise")
    return claims.judged(
        "both-phases-help-both-kinds",
        f"held-out bits per byte, {told}; the mean over both fell in {falling} of {len(falls)} "
        f"intervals, least by {least}{power(least)}",
        held=falling == len(falls) and all(gain.exceeds(noise) for gain in gains.values()),
    )


def transfer_claim(ends: Mapping[str, KindBits], claims: StatedClaims) -> Claim:
    """Judge code after language and code, against code alone at equal tokens of code."""
    phased, alone = ends[PHASED][CODE_KIND], ends[CODE_ALONE][CODE_KIND]
    gain = Gain.of(phased, alone)
    return claims.lower(
        "language-helps-code",
        f"held-out code: {fmean(phased):.4f} bits per byte after language and code, "
        f"{fmean(alone):.4f} after the same tokens of code alone ({gain.lower_or_higher})"
        f"{power(gain)}",
        gain,
    )


def order_claim(ends: Mapping[str, KindBits], claims: StatedClaims) -> Claim:
    """Judge the mean over both kinds, language first against the same text in one mixture."""
    gains = {kind: Gain.of(ends[PHASED][kind], ends[POOLED][kind]) for kind in (BOTH_KINDS, *KINDS)}
    told = "; ".join(
        f"{kind} {fmean(ends[PHASED][kind]):.4f} in phases, {fmean(ends[POOLED][kind]):.4f} pooled "
        f"({gain.lower_or_higher})"
        for kind, gain in gains.items()
    )
    mean = gains[BOTH_KINDS]
    return claims.lower("order-balances", f"at equal text, {told}{power(mean)}", mean)


def curve_figure(tokens: Sequence[float], curve: Sequence[KindBits]) -> Figure:
    """Draw the bits per byte of both kinds and their mean over tokens."""
    series = [
        Series(
            kind,
            tokens,
            [fmean(each[kind]) for each in curve],
            "points",
            half_widths_of([each[kind] for each in curve]),
            is_reference=kind == BOTH_KINDS,
        )
        for kind in (*KINDS, BOTH_KINDS)
    ]
    falls = ", ".join(
        f"{kind} from {fmean(curve[0][kind]):.2f} to {fmean(curve[-1][kind]):.2f}" for kind in KINDS
    )
    title = f"Held-out bits per byte through the phases: {falls}"
    return line_figure(title, series, "tokens", "bits per byte, 95 % over seeds")
