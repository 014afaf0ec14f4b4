"""The report of an experiment: report.html for people, claims.json for machines, and a summary.

``claims.md`` and ``figure.svg`` are the short form that is committed under docs/results.
"""

import json
import math
from pathlib import Path
from typing import Any

from feldspar import __version__
from feldspar.core.files import write_atomically
from feldspar.report.page import Section, Table, render_page
from feldspar.reproduce.claims import Claim, counts
from feldspar.reproduce.experiment import Outcome
from feldspar.reproduce.machine import machine
from feldspar.reproduce.paper import Scale

PAGE_NAME, CLAIMS_NAME = "report.html", "claims.json"
SUMMARY_NAME, FIGURE_NAME = "claims.md", "figure.svg"


def write_report(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Write the four files into ``folder``; returns what claims.json holds."""
    record = record_of(outcome)
    write_atomically(folder / CLAIMS_NAME, json.dumps(record, indent=2, allow_nan=False) + "\n")
    write_atomically(folder / FIGURE_NAME, outcome.findings.figure.svg + "\n")
    write_atomically(folder / SUMMARY_NAME, summary(outcome, record))
    write_atomically(folder / PAGE_NAME, page(outcome, record))
    return record


def command_of(outcome: Outcome) -> str:
    """The command that makes this report."""
    options = {Scale.QUICK: "--quick", Scale.SMALL: "--scale small", Scale.PAPER: "--scale paper"}
    return f"feldspar reproduce {outcome.paper.name} {options[outcome.scale]}"


def record_of(outcome: Outcome) -> dict[str, Any]:
    """Everything as plain values; a loss that is no finite number is null."""
    runs = outcome.runs
    return {
        "paper": outcome.paper.name,
        "title": outcome.paper.title,
        "arxiv": outcome.paper.number,
        "scale": outcome.scale.value,
        "command": command_of(outcome),
        "version": __version__,
        "machine": machine(),
        "runs": len(runs),
        "seeds": sorted({seed_of(run.trial.overrides) for run in runs}),
        "diverged": sum(run.diverged for run in runs),
        "trained_tokens": sum(run.tokens for run in runs),
        "training_seconds": round(sum(run.seconds for run in runs), 1),
        "wall_seconds": round(outcome.wall_seconds, 1),
        "workers": outcome.workers,
        "verdicts": counts(outcome.findings.claims),
        "claims": [claim.as_dict() for claim in outcome.findings.claims],
        "figures": finite(outcome.findings.figures),
    }


def seed_of(overrides: tuple[str, ...]) -> int:
    """The seed among a run's overrides; recipes begin at 0."""
    given = [item.removeprefix("seed=") for item in overrides if item.startswith("seed=")]
    return int(given[-1]) if given else 0


def finite(value: Any) -> Any:
    """Plain values with None for numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def circumstances(record: dict[str, Any]) -> str:
    """What was run, on what, for how long, in a sentence or two."""
    host = record["machine"]
    seeds = ", ".join(map(str, record["seeds"]))
    diverged = f", {record['diverged']} of which diverged" if record["diverged"] else ""
    return (
        f"{record['runs']} runs{diverged}, {record['trained_tokens'] / 1e6:,.0f} million tokens, "
        f"seed{'s' if len(record['seeds']) > 1 else ''} {seeds}; "
        f"{record['wall_seconds'] / 60:.1f} minutes with {record['workers']} worker"
        f"{'s' if record['workers'] > 1 else ''} of one thread on {host['cores']} cores "
        f"({host['processor']}, {host['memory_gib']:g} GiB), torch {host['torch']}, Python "
        f"{host['python']}, feldspar {record['version']}."
    )


def page(outcome: Outcome, record: dict[str, Any]) -> str:
    """The page: claims with both figures, then the experiment's own tables and figures."""
    paper, claims = outcome.paper, outcome.findings.claims
    verdicts = ", ".join(f"{count} {name}" for name, count in record["verdicts"].items())
    sections = [
        Section("Claims", [f"Verdicts: {verdicts}."], [overview(claims)]),
        *(claim_section(claim) for claim in claims),
        *outcome.findings.sections,
        Section("Circumstances", [circumstances(record)], texts=[record["command"]]),
    ]
    subtitle = f"arXiv {paper.number}, {outcome.scale.value} scale"
    return render_page(f"Reproducing {paper.title}", subtitle, sections)


def overview(claims: tuple[Claim, ...]) -> Table:
    """The verdicts at a glance."""
    return Table(["claim", "verdict"], [[claim.statement, claim.verdict.value] for claim in claims])


def claim_section(claim: Claim) -> Section:
    """One claim: the paper's figure beside ours, and why the verdict is what it is."""
    lines = [
        claim.statement,
        f"Paper: {claim.paper}.",
        f"Here: {claim.ours}.",
        f"Needed: {claim.tolerance}.",
        claim.reason,
    ]
    if claim.cost:
        lines.append(f"At the paper's scale: {claim.cost}.")
    return Section(f"{claim.verdict.value}: {claim.name}", lines)


def summary(outcome: Outcome, record: dict[str, Any]) -> str:
    """The claims as a table in Markdown, with the circumstances."""
    paper = outcome.paper
    lines = [
        f"# {paper.title} (arXiv {paper.number}), {outcome.scale.value} scale",
        "",
        f"`{record['command']}`: {circumstances(record)}",
        "",
        "| claim | paper | here | verdict |",
        "|---|---|---|---|",
    ]
    for claim in outcome.findings.claims:
        cells = (claim.statement, claim.paper, claim.ours, verdict_words(claim))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    costs = sorted({claim.cost for claim in outcome.findings.claims if claim.cost})
    lines += ["", *(f"At the paper's scale: {cost}." for cost in costs)]
    return "\n".join(lines).rstrip() + "\n"


def verdict_words(claim: Claim) -> str:
    """The verdict with its grounds."""
    return f"**{claim.verdict.value}**. {claim.reason}"
