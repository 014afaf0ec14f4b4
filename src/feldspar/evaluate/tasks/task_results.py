"""Results of lm-eval's tasks: what was measured, on how many items, by which version of what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any


@dataclass(frozen=True)
class TaskResult:
    """The metrics of one task."""

    task: str
    metrics: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)
    """Standard errors by metric; lm-eval estimates none for some metrics."""
    items: int | None = None
    """Number of items that were asked; None for a group of tasks."""
    shots: int | None = None
    """Number of solved examples before each item."""
    version: str | None = None
    """The version of the task's definition."""
    chance: float | None = None
    """The accuracy of guessing, where the definition of the task states it."""
    harness: str = ""
    """lm-eval with its version."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: each metric beside its ``METRIC_stderr``, then what was asked."""
        errors = {f"{metric}_stderr": error for metric, error in self.errors.items()}
        return {
            **self.metrics,
            **errors,
            "chance": self.chance,
            "items": self.items,
            "shots": self.shots,
            "version": self.version,
            "harness": self.harness,
        }


def task_results(found: Mapping[str, Any]) -> list[TaskResult]:
    """Return the results in what lm-eval's ``simple_evaluate`` returned, by task."""
    harness = f"lm-eval {metadata.version('lm-eval')}"
    results = []
    for task, values in found["results"].items():
        metrics, errors = _metrics(values)
        about = found["configs"].get(task, {}).get("metadata") or {}
        version = found["versions"].get(task)
        results.append(
            TaskResult(
                task,
                metrics,
                errors,
                items=found["n-samples"].get(task, {}).get("effective"),
                shots=found["n-shot"].get(task),
                version=None if version is None else str(version),
                chance=about.get("chance"),
                harness=harness,
            )
        )
    return results


def _metrics(values: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Return numeric metrics and their standard errors.

    ``acc,none`` becomes ``acc``, and ``exact_match,strict`` becomes ``exact_match/strict``.
    """
    metrics, errors = {}, {}
    for key, value in values.items():
        name, _, kind = key.partition(",")
        if not kind or not isinstance(value, int | float):
            continue
        end = "" if kind == "none" else f"/{kind}"
        if name.endswith("_stderr"):
            errors[name.removesuffix("_stderr") + end] = float(value)
        else:
            metrics[name + end] = float(value)
    return metrics, errors
