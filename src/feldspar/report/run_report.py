"""The page of one or several runs, from their recorded JSON: curves, data, figures, samples."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.files import write_atomically
from feldspar.report.figures import Figure, Series, bar_figure, line_figure
from feldspar.report.noise_scale_figures import noise_scale_sections
from feldspar.report.page import Section, Table, render_page

REPORT_NAME = "report.html"
SUMMARY_NAME = "summary.json"
SMOOTHED_STEPS = 40


def write_run_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of ``runs``; by default into the first run's folder.

    Raises UserError for a folder without metrics.
    """
    target = out or runs[0] / REPORT_NAME
    write_atomically(target, run_page(runs))
    return target


def run_page(runs: Sequence[Path]) -> str:
    """The page of one run, or of several side by side."""
    records = {run.name: read_metrics(run) for run in runs}
    sections = [Section("Training", figures=training_figures(records))]
    sections += noise_scale_sections(records)
    for run in runs:
        sections += summary_sections(run)
    sections += [
        Section(f"Recipe of {run.name}", texts=[(run / "recipe.yaml").read_text(encoding="utf-8")])
        for run in runs
    ]
    names = ", ".join(records)
    last, counted = next(iter(records.values()))[-1], counted_by(records)
    subtitle = f"{last[counted]:,} {counted} in {last['step']:,} steps"
    return render_page(f"Run {names}", subtitle, sections)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl; a torn last line is left out."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{run} is no run folder: it holds no metrics.jsonl")
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    if not records:
        raise UserError(f"{path} holds no step yet", do="train the run first")
    return records


def counted_by(records: dict[str, list[dict[str, Any]]]) -> str:
    """What the runs' positions count: tokens or images. Raises UserError for runs of both kinds."""
    kinds = {"tokens" if "tokens" in row else "images" for rows in records.values() for row in rows}
    if len(kinds) > 1:
        raise UserError(
            "runs of language models and runs on images share no page",
            do="write one page of each kind",
        )
    return kinds.pop()


def training_figures(records: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """Loss, validation by source, accuracy, learning rate, batch and speed over the run."""
    one, counted = len(records) == 1, counted_by(records)
    loss = []
    for name, rows in records.items():
        positions = [row[counted] for row in rows]
        values = [_number(row["train/loss"]) for row in rows]
        if one:
            loss.append(Series("", positions, values, "faint"))
        loss.append(Series("training" if one else name, positions, smoothed(values)))
    figures = []
    for measure, title, label in (
        ("loss", "", f"nats per {counted.removesuffix('s')}"),
        ("bits_per_byte", "Validation by source", "bits per byte"),
        ("top1", "Validation: the first class is right", "share of images"),
        ("top5", "Validation: one of five classes is right", "share of images"),
    ):
        series = validation_series(records, measure, counted)
        if measure == "loss":
            total = [item for item in series if item.label.endswith("mean")]
            loss += [Series("validation", item.x, item.y, "points") for item in total if one]
            figures.append(line_figure("Training loss", loss, counted, label))
        elif series:
            figures.append(line_figure(title, series, counted, label))
    for key, title, label in (
        ("learning_rate", "Base learning rate", ""),
        ("sequences", "Sequences per step", "sequences"),
        ("batch_images", "Images per step", "images"),
        ("gradient_norm", "Gradient norm before clipping", ""),
        (f"{counted}_per_second", "Speed", f"{counted} per second"),
    ):
        if not all(key in row for rows in records.values() for row in rows):
            continue
        lines = [
            Series("" if one else name, [r[counted] for r in rows], [_number(r[key]) for r in rows])
            for name, rows in records.items()
        ]
        figures.append(line_figure(title, lines, counted, label))
    return figures


def validation_series(
    records: dict[str, list[dict[str, Any]]], measure: str, counted: str = "tokens"
) -> list[Series]:
    """One series per run and source, and the mean over sources."""
    series = []
    for name, rows in records.items():
        prefix = "" if len(records) == 1 else f"{name} "
        measured = [row for row in rows if f"validation/{measure}" in row]
        keys = [
            key
            for key in (measured[-1] if measured else {})
            if key.startswith("validation/") and key.endswith(f"/{measure}")
        ]
        for key in keys:
            source = key.split("/")[1] if key.count("/") == 2 else "mean"
            known = [row for row in measured if key in row]
            x = [row[counted] for row in known]
            series.append(Series(f"{prefix}{source}", x, [row[key] for row in known], "points"))
    return series


def summary_sections(run: Path) -> list[Section]:
    """Held-out figures beside the baselines, documents, stages and samples, where recorded."""
    path = run / SUMMARY_NAME
    if not path.is_file():
        return []
    summary = json.loads(path.read_text(encoding="utf-8"))
    return [
        held_out_section(summary),
        documents_section(summary["documents"]),
        Section(
            "Time",
            tables=[
                Table(
                    ["stage", "seconds"],
                    [[name, f"{value:.1f}"] for name, value in summary["seconds"].items()],
                )
            ],
        ),
        Section(
            "Samples",
            ["Written by the exported folder through transformers, without selection."],
            texts=summary.get("samples", []),
        ),
    ]


def held_out_section(summary: dict[str, Any]) -> Section:
    """Bits per byte of the model, the trigram and the compressors on held-out documents."""
    model = summary["bits_per_byte"]
    columns = {"model": model} | summary["baselines_by_source"]
    sources = ["overall", *(name for name in model if name != "overall")]
    rows = [
        [source, *(f"{values[source]:.3f}" for values in columns.values())] for source in sources
    ]
    bars = {name: values["overall"] for name, values in columns.items()}
    return Section(
        "Held-out bits per byte",
        [
            (
                "Documents that training never saw, each scored by itself; lower is better. "
                "The compressors see each document alone, and again all of a source as one stream; "
                "the token trigram was fitted on exactly the tokens that the model was trained on."
            )
        ],
        [Table(["source", *columns], rows)],
        [bar_figure("Overall, lower is better", bars, "bits per byte")],
    )


def documents_section(documents: dict[str, Any]) -> Section:
    """What came in, what was removed and why."""
    rows = [["read", documents["read"]]]
    rows += [[f"removed: {reason}", count] for reason, count in documents["removed"].items()]
    rows.append(["kept", documents["kept"]])
    return Section("Documents", tables=[Table(["", "documents"], rows)])


def smoothed(values: Sequence[float]) -> list[float]:
    """Mean over the last steps."""
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - SMOOTHED_STEPS) : end]
        means.append(sum(window) / len(window))
    return means


def _number(value: Any) -> float:
    """JSON has no NaN: such values are recorded as text."""
    return float(value)
