"""A claim's own figure in the space of a table's cell: its first clauses, and its intervals apart.

Figures end with their intervals in one form: ``4.53% lower (+- 2.48% over 3 seeds)``.
"""

import re

from feldspar.papers.kit.claims import Claim

CELL_CHARACTERS = 220
"""The length at which a figure is cut, at the end of a clause."""
SHOWN_INTERVALS = 4
MORE = " ..."

_INTERVAL = re.compile(
    r"(?P<mean>[-+]?\d[\d,.]*)(?P<unit> ?%| points|)(?P<words>[a-z' -]*?)"
    r" ?\(\+- (?P<half>[\d.]+)%?(?: over \d+ seeds)?\)"
)
_SPREAD = re.compile(r" ?\(\+- [^()]*\)")
_POWER = re.compile(r" ?\(a true difference of [^()]*\)")


def compact(claim: Claim) -> str:
    """Return the figure without intervals and power, cut where it is longer than a cell."""
    text = _POWER.sub("", _SPREAD.sub("", claim.short or claim.ours))
    for separator in ("; ", ", "):
        kept, *rest = text.split(separator)
        for clause in rest:
            if len(kept) + len(separator) + len(clause) > CELL_CHARACTERS:
                break
            kept += separator + clause
        if len(kept) <= CELL_CHARACTERS:
            break
    return kept if len(kept) == len(text) else kept + MORE


def intervals(claim: Claim) -> str:
    """Return the 95 % intervals of what ``compact`` shows, the first few of many; else a dash."""
    shown, text = compact(claim), _POWER.sub("", claim.short or claim.ours)
    matches = [own for own in _INTERVAL.finditer(text) if _SPREAD.sub("", own[0]) in shown]
    found = list(dict.fromkeys(map(_interval, matches)))
    if not found:
        return "counted" if claim.counted else "-"
    return "; ".join(found[:SHOWN_INTERVALS]) + (MORE if len(found) > SHOWN_INTERVALS else "")


def _interval(match: re.Match[str]) -> str:
    mean, half = float(match["mean"].replace(",", "")), float(match["half"])
    places = len(match["half"].partition(".")[2])
    low, high = f"{mean - half:.{places}f}", f"{mean + half:.{places}f}"
    return f"{low} to {high}{match['unit']}{match['words']}"
