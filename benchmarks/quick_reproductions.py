"""Every experiment with ``--quick``, one after another in an empty folder, and the minutes of each.

Data are built and shared models trained where the first experiment needs them, so that their time
counts once. ``feldspar results`` then writes one page of all claims with their figures. Run:

    python benchmarks/quick_reproductions.py --out runs/quick

The same command goes on after an interruption: an experiment that is done is not run again.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from subprocess import run
from typing import Any

from feldspar.core.json_files import write_json
from feldspar.core.machine import machine
from feldspar.papers.catalogue import PAPERS
from feldspar.papers.kit.claims import NOT_RUN

RESULTS = Path(__file__).parent / "results" / "quick_reproductions.json"
AIM_MINUTES = 40


def main() -> None:
    """Run what is missing, print a table, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/quick-reproductions"))
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, a thread each")
    parser.add_argument("papers", nargs="*", help="default: all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "minutes.json"
    rows: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    for paper in options.papers or PAPERS:
        if paper not in rows:
            rows[paper] = reproduced(paper, options.out, options.workers)
            write_json(kept, rows)
    feldspar(options.out, "results", "runs/reproduce")
    print(table(rows))
    if not options.papers:
        write_json(RESULTS, {"machine": machine(), "workers": options.workers, "papers": rows})


def reproduced(paper: str, folder: Path, workers: int) -> dict[str, Any]:
    """Run an experiment; return its minutes, and its claims that have a figure and a verdict."""
    began = time.perf_counter()
    feldspar(folder, "reproduce", paper, "--quick", "--workers", str(workers))
    minutes = (time.perf_counter() - began) / 60
    record = json.loads((folder / f"runs/reproduce/{paper}-quick/claims.json").read_text())
    claims = record["claims"]
    return {
        "minutes": round(minutes, 2),
        "runs": record["runs"],
        "figures": sum(claim["ours"] != NOT_RUN for claim in claims),
        "claims": len(claims),
        "verdicts": record["verdicts"],
    }


def feldspar(folder: Path, *arguments: str) -> None:
    """Run a command in a folder."""
    run([sys.executable, "-m", "feldspar", *arguments], cwd=folder, check=True)


def table(rows: dict[str, Any]) -> str:
    """Return the minutes of each experiment and of all, in Markdown."""
    lines = [
        "| paper | minutes | runs | claims with a figure | verdicts |",
        "|---|---|---|---|---|",
    ]
    for paper, row in rows.items():
        verdicts = ", ".join(f"{count} {name}" for name, count in row["verdicts"].items() if count)
        figures = f"{row['figures']} of {row['claims']}"
        lines.append(f"| {paper} | {row['minutes']:.1f} | {row['runs']} | {figures} | {verdicts} |")
    minutes = sum(row["minutes"] for row in rows.values())
    lines.append(f"| all, of {AIM_MINUTES} minutes at most | {minutes:.1f} | | | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
