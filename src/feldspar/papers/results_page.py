"""One page of all recorded claims: a summary, the claims that had failed, and every claim.

The page is written from the records of ``feldspar reproduce`` alone. Words around it are kept: it
stands between two marks in ``README.md``.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.files import write_atomically
from feldspar.papers.catalogue import PAPERS
from feldspar.papers.kit.claims import Claim, Verdict
from feldspar.papers.kit.compact import compact, intervals
from feldspar.papers.kit.paper import Scale
from feldspar.papers.kit.report import OUTDATED, claims_of, day_of
from feldspar.papers.kit.stated import EarlierFigure
from feldspar.report.markdown import markdown_table

PAGE = "README.md"
BEGIN, END = "<!-- recorded claims begin -->", "<!-- recorded claims end -->"

FAILED_AT_FIRST = {
    "cerebras-gpt": ("mup-below-the-law-of-sp",),
    "btlm": ("second-phase-serves-long-positions", "change-swiglu", "change-decay"),
    "slimpajama-dc": ("diversity",),
    "gns": ("one-factor-serves-the-run", "ramp-beats-every-constant", "norm-layers-are-free"),
    "crystal": ("infilling-is-learned", "order-balances"),
    "mediswift": ("time-saved",),
    "bilingual": ("rows", "first-stage", "two-stages", "both-gain", "english-helps"),
    "alibi-interpolation": ("twice-as-far-without-training", "fine-tuned-reads-farther"),
}
"""The 18 claims that had failed when each paper had been run once."""
FAILED_SINCE = {
    "supar": ("retuned-loss-mup",),
    "gns": ("closed-loop-beats-every-constant",),
    "mediswift": ("dense-fine-tuning-helps",),
}
"""The claims that failed when intervals by Student's t and margins became the rule."""
AT_FIRST = (
    "These 18 claims had failed when each paper had been run once. A claim that fails a fair "
    "experiment stays failed."
)
SINCE = (
    "These failed later, without a new run, when intervals by Student's t and margins that noise "
    "does not widen became the rule."
)
NOT_RUN_AGAIN = "not run again"
DECIMAL = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class Recorded:
    """A record of an experiment, and where it lies."""

    path: Path
    values: dict[str, Any]

    @property
    def paper(self) -> str:
        """The paper's name."""
        return self.values["paper"]

    @property
    def scale(self) -> Scale:
        """The scale of the experiment."""
        return Scale(self.values["scale"])

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims with their verdicts."""
        return claims_of(self.values)

    @property
    def name(self) -> str:
        """The paper's title, and the scale where it is not the small one."""
        scale = "" if self.scale is Scale.SMALL else f", {self.scale} scale"
        return f"{self.values['title']}{scale}{' (earlier design)' if self.is_outdated else ''}"

    @property
    def is_outdated(self) -> bool:
        """True where the experiment has another design since."""
        return self.values.get(OUTDATED, False)

    def link(self, folder: Path, words: str) -> str:
        """Return a link from ``folder`` to the record's own page."""
        return f"[{words}]({self.path.with_suffix('.md').relative_to(folder).as_posix()})"


def write_page(folder: Path) -> Path:
    """Write ``README.md`` of a folder of records, or the part of it between the marks.

    Raises UserError where the folder holds no record, or a page without the marks.
    """
    target = folder / PAGE
    before = target.read_text(encoding="utf-8") if target.is_file() else f"{BEGIN}\n{END}\n"
    if before.count(BEGIN) != 1 or before.count(END) != 1:
        raise UserError(
            f"{target} is a page of another kind",
            do=f"write the lines {BEGIN} and {END} where the claims should stand",
        )
    write_atomically(target, page_with(before, read_records(folder), folder))
    return target


def page_with(before: str, records: Sequence[Recorded], folder: Path) -> str:
    """Return the page ``before`` with what the records say between its marks."""
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    parts = [summary_lines(records, folder), failed_lines(records), *claim_lines(records, folder)]
    lines = [line for part in parts if part for line in (*part, "")]
    return "\n".join([f"{head}{BEGIN}", *lines, f"{END}{tail}"])


def read_records(folder: Path) -> list[Recorded]:
    """Return the records of a folder and of experiments right below it, paper by paper.

    Raises UserError where there is none.
    """
    found = []
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/claims.json")]):
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and {"paper", "scale", "claims", "figures"} <= set(values):
            found.append(Recorded(path, values))
    if not found:
        raise UserError(
            f"{folder} holds no record of an experiment",
            do="give the folder of experiments (runs/reproduce), or one of PAPER.json",
        )
    papers, scales = list(PAPERS), list(Scale)
    return sorted(
        found,
        key=lambda own: (own.scale is Scale.OPEN, papers.index(own.paper), scales.index(own.scale)),
    )


def summary_lines(records: Sequence[Recorded], folder: Path) -> list[str]:
    """Count the verdicts of each experiment beside its time, machine, day and command."""
    rows = []
    for own in records:
        host = own.values["machine"]
        rows.append(
            (
                own.link(folder, own.name),
                verdicts_in_words(own.claims),
                f"{own.values['wall_seconds'] / 60:.0f}",
                f"{host['processor']}, {own.values['workers']} of {host['cores']} cores",
                day_of(own.values),
                f"`{own.values['command']}`",
            )
        )
    together = [claim for own in records for claim in own.claims]
    minutes = sum(own.values["wall_seconds"] for own in records) / 60
    rows.append(("together", verdicts_in_words(together), f"{minutes:.0f}", "", "", ""))
    header = ("experiment", "verdicts", "minutes", "machine", "day", "command")
    return ["## Summary", "", *markdown_table(header, rows)]


def verdicts_in_words(claims: Iterable[Claim]) -> str:
    """Count the claims of each verdict that occurs."""
    found = Counter(claim.verdict for claim in claims)
    return ", ".join(f"{found[verdict]} {verdict}" for verdict in Verdict if found[verdict])


def failed_lines(records: Sequence[Recorded]) -> list[str]:
    """Say of each claim that had failed what was wrong, and what its experiment says now."""
    header = ("claim", "earlier figure", "what was wrong", "now", "verdict")
    lines = ["## Claims that had failed"]
    for intro, claims in ((AT_FIRST, FAILED_AT_FIRST), (SINCE, FAILED_SINCE)):
        names = [(paper, name) for paper in PAPERS for name in claims.get(paper, ())]
        rows = [row for row in (failed_row(records, *pair) for pair in names) if row]
        if rows:
            lines += ["", intro, "", *markdown_table(header, rows)]
    return lines if len(lines) > 1 else []


def failed_row(records: Sequence[Recorded], paper: str, name: str) -> tuple[str, ...]:
    """Return the row of a claim that had failed; nothing where no record holds the claim."""
    now = [
        (own, claim)
        for own in records
        for claim in own.claims
        if own.paper == paper and claim.name == name and own.scale is not Scale.QUICK
    ]
    if not now:
        return ()
    stated = next(each for each in PAPERS[paper].stated.claims if each.id == name)
    earlier = stated.earlier
    figure = earlier.figure if earlier else now[0][1].ours
    figures = [
        told(own, NOT_RUN_AGAIN if is_earlier(own, claim, earlier) else compact(claim))
        for own, claim in now
    ]
    return (
        f"{now[0][0].paper}: {now[0][1].statement}",
        figure,
        earlier.why if earlier else stated.weakness,
        "; ".join(figures),
        "; ".join(told(own, claim.verdict.value) for own, claim in now),
    )


def is_earlier(own: Recorded, claim: Claim, earlier: EarlierFigure | None) -> bool:
    """Tell whether a record still holds the earlier figure of a claim that had failed.

    Words may differ, so decimals are compared: one of the two figures has all that the other has.
    """
    if own.is_outdated or earlier is None:
        return own.is_outdated or own.scale is Scale.SMALL
    now, before = (set(DECIMAL.findall(text)) for text in (claim.ours, earlier.figure))
    return now <= before or before <= now


def told(own: Recorded, words: str) -> str:
    """Name the scale before the words, where it is not the small one."""
    return words if own.scale is Scale.SMALL else f"{own.scale} scale: {words}"


def claim_lines(records: Sequence[Recorded], folder: Path) -> list[list[str]]:
    """Return a table of the claims of each experiment."""
    header = ("claim", "paper", "here", "95 % interval", "verdict")
    parts = [["## Every claim"]]
    for own in records:
        values = own.values
        circumstances = (
            f"`{values['command']}`: {values['wall_seconds'] / 60:.0f} minutes, "
            f"{day_of(values)}, {values['machine']['processor']}. "
            f"{own.link(folder, 'Whole figures, reasons and costs')}."
        )
        rows = [
            (each.statement, each.paper, compact(each), intervals(each), each.verdict.value)
            for each in own.claims
        ]
        parts.append([f"### {own.name}", "", circumstances, "", *markdown_table(header, rows)])
    return parts
