"""The report of an experiment: report.html for people, claims.json for machines, and a summary.

``claims.json`` holds the figures that claims are judged by, so that ``judge_again`` can write the
report anew with the rules of today and without the runs. It is committed under docs/results, with
``claims.md`` and ``claims.svg`` beside it.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feldspar import __version__
from feldspar.core.errors import UserError
from feldspar.core.files import write_atomically
from feldspar.core.json_files import write_json
from feldspar.core.machine import machine
from feldspar.core.readable import amount, duration
from feldspar.papers.kit.claims import Claim, Verdict, counts, with_recorded
from feldspar.papers.kit.experiment import Outcome
from feldspar.papers.kit.paper import Findings, Paper, Scale
from feldspar.report.markdown import markdown_table
from feldspar.report.page import Card, Fact, Section, Table, render_page

PAGE_NAME, CLAIMS_NAME = "report.html", "claims.json"
DESIGN, OUTDATED = "design", "outdated"
"""Keys of a record: the number of its design, and whether the experiment has another one since."""
EARLIER_DESIGN = (
    "These figures and verdicts are of an earlier design of the experiment. Today's design, in "
    "`claims.yaml` and in the paper's README.md, has not been run in full."
)
INTERVALS = (
    "After +- stands half of a 95% interval around the mean by Student's t, over the seeds or over "
    "the sizes of a family."
)


def write_report(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Write the four files into ``folder``; return the content of claims.json."""
    record = record_of(outcome)
    _write(record, outcome.findings, folder / CLAIMS_NAME)
    write_atomically(folder / PAGE_NAME, page(record, outcome.findings))
    return record


def judge_again(paper: Paper, path: Path) -> dict[str, Any]:
    """Judge the claims of a record by its own figures, and write it anew with what lies beside it.

    A claim whose figures the record lacks is kept as it was, and so are all claims of an earlier
    design of the experiment, which the record then says. Raises UserError for a file that is no
    record of ``paper``.
    """
    record, findings = judged_record(paper, read_record(paper, path))
    _write(record, findings, path)
    beside = path.with_name(PAGE_NAME)
    if findings is not None and beside.is_file():
        write_atomically(beside, page(record, findings))
    return record


def judged_record(paper: Paper, record: dict[str, Any]) -> tuple[dict[str, Any], Findings | None]:
    """Return a record with its claims judged by its figures, and the findings.

    A record of an earlier design of the experiment is marked as such, and has no findings.
    """
    record = {key: value for key, value in record.items() if key != OUTDATED}
    if record.get(DESIGN, 1) != paper.design(Scale(record["scale"])):
        return record | {OUTDATED: True}, None
    try:
        findings = paper.findings(record["figures"], Scale(record["scale"]))
    except KeyError as error:
        raise UserError(
            f"the record of {paper.name} lacks the figure {error}",
            do=f"run it again: feldspar reproduce {paper.name}",
        ) from error
    claims = with_recorded(findings.claims, [Claim.from_dict(own) for own in record["claims"]])
    own = {"verdicts": counts(claims), "claims": [claim.as_dict() for claim in claims]}
    own |= {"notes": list(paper.notes(Scale(record["scale"])))}
    return record | own | tables_of(findings), findings


def read_record(paper: Paper, path: Path) -> dict[str, Any]:
    """Read a record of ``paper``. Raises UserError for anything else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{path} is no JSON file") from None
    if not isinstance(record, dict) or not {"paper", "scale", "claims", "figures"} <= set(record):
        raise UserError(
            f"{path} is no record of an experiment",
            do="give the claims.json of an experiment's folder, or a PAPER.json of docs/results",
        )
    if record["paper"] != paper.name:
        raise UserError(
            f"{path} records another paper",
            found=record["paper"],
            do=f"feldspar reproduce {record['paper']} --judge {path}",
        )
    return record


def _write(record: dict[str, Any], findings: Findings | None, path: Path) -> None:
    """Write the record, its summary, and the drawing where the figures hold it."""
    write_json(path, record)
    write_atomically(path.with_suffix(".md"), summary(record))
    if findings is not None and findings.figure is not None:
        write_atomically(path.with_suffix(".svg"), findings.figure.standalone + "\n")


def command_of(paper: str, scale: Scale) -> str:
    """Return the command that makes a report."""
    options = {
        Scale.QUICK: "--quick",
        Scale.SMALL: "--scale small",
        Scale.OPEN: "--scale open",
        Scale.PAPER: "--scale paper",
    }
    return f"feldspar reproduce {paper} {options[scale]}"


def record_of(outcome: Outcome) -> dict[str, Any]:
    """Return all of an outcome as plain values; a loss that is no finite number is null."""
    runs = outcome.runs
    images = sum(run.images for run in runs)
    return {
        "paper": outcome.paper.name,
        "title": outcome.paper.stated.title,
        "arxiv": outcome.paper.stated.arxiv,
        "scale": outcome.scale.value,
        "command": command_of(outcome.paper.name, outcome.scale),
        "version": __version__,
        DESIGN: outcome.paper.design(outcome.scale),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "runs": len(runs),
        "seeds": sorted({seed_of(run.trial.overrides) for run in runs}),
        "diverged": sum(run.diverged for run in runs),
        "trained_tokens": sum(run.tokens for run in runs),
        **({"trained_images": images} if images else {}),
        "training_seconds": round(sum(run.seconds for run in runs), 1),
        "wall_seconds": round(outcome.wall_seconds, 1),
        "workers": outcome.workers,
        "verdicts": counts(outcome.findings.claims),
        "claims": [claim.as_dict() for claim in outcome.findings.claims],
        "notes": list(outcome.paper.notes(outcome.scale)),
        "figures": outcome.figures,
        **kept_of(outcome),
        **tables_of(outcome.findings),
    }


KEPT_KEYS = ("date", "machine", "runs", "seeds", "trained_tokens", "wall_seconds", "workers")


def kept_of(outcome: Outcome) -> dict[str, Any]:
    """Return the circumstances of the stages that were not run again; nothing where all were."""
    if outcome.again is None:
        return {}
    record = outcome.again.record
    earlier = record.get("kept", [])
    known = {name for each in earlier for name in each["stages"]}
    names = [stage.name for stage in outcome.paper.stages(outcome.scale)]
    rest = [name for name in names if name not in outcome.results and name not in known]
    own = {"stages": rest} | {key: record[key] for key in KEPT_KEYS if key in record}
    still = [
        each | {"stages": [name for name in each["stages"] if name not in outcome.results]}
        for each in earlier
    ]
    return {"kept": [each for each in (*still, own) if each["stages"]]}


def tables_of(findings: Findings) -> dict[str, Any]:
    """Return the tables of the summary as plain values; nothing where there are none."""
    tables = [
        {"header": [*each.header], "rows": [*map(list, each.rows)]} for each in findings.tables
    ]
    return {"tables": tables} if tables else {}


def seed_of(overrides: tuple[str, ...]) -> int:
    """Return the seed among a run's overrides; recipes begin at 0."""
    given = [item.removeprefix("seed=") for item in overrides if item.startswith("seed=")]
    return int(given[-1]) if given else 0


def circumstances(record: dict[str, Any]) -> str:
    """Say which runs were made, on which machine, and for how long; kept stages come last."""
    words = [_circumstances(record)]
    for kept in record.get("kept", ()):
        stages = ", ".join(kept["stages"])
        words.append(
            f"Not run again: {stages}, of an earlier record: {_circumstances(record | kept)}"
        )
    return " ".join(words)


def _circumstances(record: dict[str, Any]) -> str:
    host = record["machine"]
    seeds = ", ".join(map(str, record["seeds"]))
    diverged = f", {record['diverged']} of which diverged" if record["diverged"] else ""
    images = record.get("trained_images")
    tokens = record["trained_tokens"]
    short = f"{tokens / 1e6:,.0f} million" if tokens >= 2e6 else f"{tokens / 1e3:,.0f} thousand"
    amount = f"{images:,} images" if images else f"{short} tokens"
    return (
        f"{record['runs']} runs{diverged}, {amount}, "
        f"seed{'s' if len(record['seeds']) > 1 else ''} {seeds}; "
        f"{record['wall_seconds'] / 60:.1f} minutes with {record['workers']} worker"
        f"{'s' if record['workers'] > 1 else ''} of one thread on {host['cores']} cores "
        f"({host['processor']}, {host['memory_gib']:g} GiB), torch {host['torch']}, Python "
        f"{host['python']}, feldspar {record['version']}; {day_of(record)}."
    )


def day_of(record: dict[str, Any]) -> str:
    """Return the day on which the figures were written; records of older versions have none."""
    return record.get("date", "day not recorded")


def page(record: dict[str, Any], findings: Findings) -> str:
    """Render the claims with both figures, then the experiment's own tables and figures."""
    claims = claims_of(record)
    verdicts = ", ".join(f"{count} {name}" for name, count in record["verdicts"].items())
    lines = [f"Verdicts: {verdicts}.", INTERVALS, *record["notes"]]
    sections = [
        Section("Claims", lines, [overview(claims)]),
        *(claim_section(claim) for claim in claims),
        *findings.sections,
        Section("Circumstances", [circumstances(record)], texts=[record["command"]]),
    ]
    subtitle = f"arXiv {record['arxiv']}, {record['scale']} scale"
    return render_page(f"Reproducing {record['title']}", subtitle, sections, card_of(record))


def card_of(record: dict[str, Any]) -> Card:
    """Return the card of the page: verdicts, runs and their cost."""
    images = record.get("trained_images")
    trained = (
        Fact("Images", amount(images))
        if images
        else Fact("Tokens", amount(record["trained_tokens"]))
    )
    facts = [Fact(name.capitalize(), str(count)) for name, count in record["verdicts"].items()]
    facts += [
        Fact("Runs", str(record["runs"]), f"{record['diverged']} diverged"),
        trained,
        Fact("Time", duration(record["wall_seconds"])),
        Fact("Date", day_of(record)),
    ]
    good = (Verdict.REPRODUCED, Verdict.MECHANISM_SHOWN)
    shown = sum(record["verdicts"].get(each.value, 0) for each in good)
    total = sum(record["verdicts"].values())
    headline = f"{shown} of {total} claims were reproduced or their mechanism was shown"
    return Card("", "neutral", headline, facts)


def claims_of(record: dict[str, Any]) -> tuple[Claim, ...]:
    """Read the claims of a record."""
    return tuple(map(Claim.from_dict, record["claims"]))


def overview(claims: tuple[Claim, ...]) -> Table:
    """Return a table of the claims and their verdicts."""
    return Table(["claim", "verdict"], [[claim.statement, claim.verdict.value] for claim in claims])


def claim_section(claim: Claim) -> Section:
    """Write one claim: the paper's figure beside ours, and the reason of the verdict."""
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


def summary(record: dict[str, Any]) -> str:
    """Write the claims as a table in Markdown, with the circumstances."""
    claims = claims_of(record)
    lines = [
        f"# {record['title']} (arXiv {record['arxiv']}), {record['scale']} scale",
        "",
        f"`{record['command']}`: {circumstances(record)}",
        "",
        *((EARLIER_DESIGN, "") if record.get(OUTDATED) else ()),
        INTERVALS,
        "",
        *markdown_table(
            ("claim", "paper", "here", "verdict"),
            ((claim.statement, claim.paper, claim.ours, verdict_words(claim)) for claim in claims),
        ),
    ]
    for table in record.get("tables", ()):
        lines += ["", *markdown_table(table["header"], table["rows"])]
    for note in record["notes"]:
        lines += ["", note]
    costs = sorted({claim.cost for claim in claims if claim.cost})
    lines += ["", *(f"At the paper's scale: {cost}." for cost in costs)]
    return "\n".join(lines).rstrip() + "\n"


def verdict_words(claim: Claim) -> str:
    """Return the verdict with its reason."""
    return f"**{claim.verdict.value}**. {claim.reason}"
