"""Write the page of one or more runs from their records: curves, data, figures, samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feldspar.core.errors import FeldsparError, RunError, UserError
from feldspar.core.files import write_atomically
from feldspar.core.records import gaps, read_steps
from feldspar.recipe.load import load_any_recipe
from feldspar.recipe.recorded import METRICS_NAME
from feldspar.recipe.write import recipe_text
from feldspar.report.figures import Figure, Series, bar_figure, line_figure, number_of
from feldspar.report.noise_scale_figures import noise_scale_sections
from feldspar.report.page import Section, Table, render_page
from feldspar.report.run_summary import OVERALL, DocumentCounts, Summary, read_summary

REPORT_NAME = "report.html"
SMOOTHED_STEPS = 40


def write_run_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of ``runs``, by default into the first run's folder.

    Raises UserError for a folder without metrics.
    """
    target = out or runs[0] / REPORT_NAME
    write_atomically(target, run_page(runs))
    return target


def run_page(runs: Sequence[Path]) -> str:
    """Return the page of one run, or of several side by side.

    Files that are damaged or missing are named in their place. Raises UserError for a folder
    without a step.
    """
    folders = _named(runs)
    records = {name: read_metrics(run) for name, run in folders.items()}
    sections = [Section("Training", figures=training_figures(records))]
    sections += [missing_steps(name, rows) for name, rows in records.items()]
    sections += noise_scale_sections(records)
    for name, run in folders.items():
        sections += summary_sections(name, run)
    sections += [
        Section(f"Recipe of {name}", texts=[_recipe_of(run)]) for name, run in folders.items()
    ]
    last, unit = next(iter(records.values()))[-1], position_unit_of(records)
    subtitle = f"{last[unit]:,} {unit} in {last['step']:,} steps"
    shown = [section for section in sections if section is not None]
    return render_page(f"Run {', '.join(records)}", subtitle, shown)


def _named(runs: Sequence[Path]) -> dict[str, Path]:
    """Name each run after its folder, or by its path if two folders have the same name."""
    names = [run.resolve().name for run in runs]
    shared = len(set(names)) < len(names)
    return {str(run) if shared else name: run for name, run in zip(names, runs, strict=True)}


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the records of a run's steps that have a loss; damaged ones are left out.

    Raises UserError if there are none.
    """
    path = run / METRICS_NAME
    if not path.is_file():
        raise UserError(f"{run} is not a run folder: it has no {METRICS_NAME}")
    records = [record for record in read_steps(path) if "train/loss" in record]
    if not records:
        raise UserError(f"{path} holds no step yet", do="train the run first")
    return records


def missing_steps(name: str, rows: Sequence[Mapping[str, Any]]) -> Section | None:
    """Return a section with the steps that have no record; None if no step is missing."""
    rest = gaps([row["step"] for row in rows], rows[-1]["step"])
    if not rest:
        return None
    told = ", ".join(f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in rest)
    words = "metrics.jsonl has no readable record of these steps, so the figures leave them out:"
    return Section(f"Missing steps of {name}", [f"{words} {told}."])


def _recipe_of(run: Path) -> str:
    """Return the run's recipe, or the reason why it cannot be read."""
    try:
        return recipe_text(load_any_recipe(str(run.resolve())))
    except FeldsparError as error:
        return f"It cannot be read: {error.what}"


def position_unit_of(records: dict[str, list[dict[str, Any]]]) -> str:
    """Return the unit of the runs' positions. Raises UserError for runs of both kinds."""
    kinds = {"tokens" if "tokens" in row else "images" for rows in records.values() for row in rows}
    if len(kinds) > 1:
        raise UserError(
            "runs of language models and runs on images cannot share a page",
            do="write one page of each kind",
        )
    return kinds.pop()


def training_figures(records: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """Return loss, validation by source, accuracy, learning rate, batch size and speed over the
    run."""
    one, unit = len(records) == 1, position_unit_of(records)
    loss = []
    for name, rows in records.items():
        positions = [row[unit] for row in rows]
        values = [number_of(row["train/loss"]) for row in rows]
        if one:
            loss.append(Series("", positions, values, "faint"))
        loss.append(Series("training" if one else name, positions, smoothed(values)))
    figures = []
    for measure, title, label in (
        ("loss", "", f"nats per {unit.removesuffix('s')}"),
        ("bits_per_byte", "Validation by source", "bits per byte"),
        ("top1", "Validation: the first class is right", "share of images"),
        ("top5", "Validation: one of five classes is right", "share of images"),
        ("box_AP", "Validation: boxes that are found", "average precision"),
        ("mask_AP", "Validation: masks that are found", "average precision"),
        ("mean_iou", "Validation: classes of pixels", "mean intersection by union"),
    ):
        series = validation_series(records, measure, unit)
        if measure == "loss":
            total = [item for item in series if item.label.endswith("mean")]
            loss += [Series("validation", item.x, item.y, "points") for item in total if one]
            figures.append(line_figure("Training loss", loss, unit, label))
        elif series:
            figures.append(line_figure(title, series, unit, label))
    for key, title, label in (
        ("learning_rate", "Base learning rate", ""),
        ("sequences", "Sequences per step", "sequences"),
        ("batch_images", "Images per step", "images"),
        ("gradient_norm", "Gradient norm before clipping", ""),
        (f"{unit}_per_second", "Speed", f"{unit} per second"),
    ):
        if not all(key in row for rows in records.values() for row in rows):
            continue
        lines = [
            Series("" if one else name, *_points(rows, unit, key)) for name, rows in records.items()
        ]
        figures.append(line_figure(title, lines, unit, label))
    return figures


def validation_series(
    records: dict[str, list[dict[str, Any]]], measure: str, unit: str = "tokens"
) -> list[Series]:
    """Return a series for each run and source, and the mean over sources."""
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
            series.append(Series(f"{prefix}{source}", *_points(known, unit, key), "points"))
    return series


def _points(
    rows: Sequence[Mapping[str, Any]], unit: str, key: str
) -> tuple[list[float], list[float]]:
    """Return positions and values of one measurement."""
    return [row[unit] for row in rows], [number_of(row[key]) for row in rows]


def summary_sections(name: str, run: Path) -> list[Section]:
    """Return held-out figures beside the baselines, documents, stages and samples, if recorded."""
    try:
        summary = read_summary(run)
    except RunError as error:
        return [Section(f"Held-out figures of {name}", [f"{error.what}. They are left out."])]
    if summary is None:
        return []
    stages = [[stage, f"{seconds:.1f}"] for stage, seconds in summary.seconds.items()]
    return [
        held_out_section(summary),
        documents_section(summary.documents),
        Section("Time", tables=[Table(["stage", "seconds"], stages)]),
        Section(
            "Samples",
            ["Written by the exported folder through transformers, without selection."],
            texts=summary.samples,
        ),
    ]


def held_out_section(summary: Summary) -> Section:
    """Return bits per byte of the model, the trigram and the compressors on held-out documents."""
    columns = summary.columns
    sources = [OVERALL, *(name for name in summary.bits_per_byte if name != OVERALL)]
    rows = [
        [source, *(f"{values[source]:.3f}" for values in columns.values())] for source in sources
    ]
    return Section(
        "Held-out bits per byte",
        [
            (
                "Training never saw these documents; each one is scored alone, and lower "
                "is better. The compressors see each document alone, and all documents "
                "of a source as one stream. The token trigram was fitted on exactly the "
                "model's training tokens."
            )
        ],
        [Table(["source", *columns], rows)],
        [held_out_figure(summary)],
    )


def held_out_figure(summary: Summary) -> Figure:
    """Return bars: bits per byte of the model and of each baseline over all sources."""
    bars = {name: values[OVERALL] for name, values in summary.columns.items()}
    return bar_figure("Overall, lower is better", bars, "bits per byte")


def documents_section(documents: DocumentCounts) -> Section:
    """Return a section: documents read, removed (with reasons) and kept."""
    rows: list[list[Any]] = [["read", documents.read]]
    rows += [[f"removed: {reason}", count] for reason, count in documents.removed.items()]
    rows.append(["kept", documents.kept])
    return Section("Documents", tables=[Table(["", "documents"], rows)])


def smoothed(values: Sequence[float]) -> list[float]:
    """Return means over the last steps."""
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - SMOOTHED_STEPS) : end]
        means.append(sum(window) / len(window))
    return means
