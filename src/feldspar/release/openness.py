"""Compute how open a release is: which of the four pillars of LLM360 (2312.06550) are complete.

Each pillar is complete, or names what is missing and why. Nothing is asserted by hand.
"""

from collections.abc import Sequence
from typing import Any

PILLARS = {
    "checkpoints": "frequent checkpoints with the state of the optimizer",
    "data_order": "the data in exactly the order in which they were read",
    "code": "all code and settings",
    "logs": "metrics of each step, and events",
}


def openness(
    *,
    checkpoints: Sequence[dict[str, Any]],
    left_out: Sequence[str],
    order_missing: Sequence[str],
    corpus: dict[str, Any],
    software: Sequence[dict[str, Any]],
    steps: int,
    recorded_steps: int,
    has_events: bool,
) -> dict[str, Any]:
    """Return each pillar with what it lacks, and how many are complete."""
    missing = {
        "checkpoints": [*left_out, *_missing_checkpoints(checkpoints)],
        "data_order": [*order_missing, *_private_sources(corpus)],
        "code": _missing_code(software),
        "logs": _missing_logs(steps, recorded_steps, has_events),
    }
    pillars = {
        name: {"about": about, "complete": not missing[name], "missing": missing[name]}
        for name, about in PILLARS.items()
    }
    done = sum(pillar["complete"] for pillar in pillars.values())
    return {"level": f"{done} of {len(PILLARS)} pillars complete", "pillars": pillars}


def _missing_checkpoints(checkpoints: Sequence[dict[str, Any]]) -> list[str]:
    if len(checkpoints) < 2:
        return ["no checkpoint before the last one is in the release"]
    without = [each["tokens"] for each in checkpoints if not each["optimizer"]]
    if without:
        return [f"{len(without)} checkpoints have no state of the optimizer"]
    return []


def _private_sources(corpus: dict[str, Any]) -> list[str]:
    """List the sources that an outsider cannot fetch, because the recipe reads local files."""
    local = [
        name for name, source in corpus["sources"].items() if source.get("origin", {}).get("path")
    ]
    if not local:
        return []
    names = ", ".join(local)
    return [f"{names}: read from local files, which outsiders cannot fetch by the recipe"]


def _missing_code(software: Sequence[dict[str, Any]]) -> list[str]:
    if not software:
        return ["the run did not record which version of feldspar trained it"]
    if any(each.get("changed") for each in software):
        return ["the checkout of feldspar that trained it had changes that are in no commit"]
    return []


def _missing_logs(steps: int, recorded_steps: int, has_events: bool) -> list[str]:
    found = []
    if recorded_steps != steps:
        found.append(f"metrics.jsonl has records of {recorded_steps:,} of {steps:,} steps")
    if not has_events:
        found.append("the run has no events.jsonl")
    return found
