"""Write the page of one or more runs from their records: curves, data, figures, samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feldspar.core.errors import FeldsparError, RunError, UserError
from feldspar.core.files import write_atomically
from feldspar.core.records import gaps, read_steps
from feldspar.recipe.load import LoadedDataRecipe, load_any_recipe, plain
from feldspar.recipe.recorded import METRICS_NAME
from feldspar.recipe.write import recipe_text
from feldspar.report.bars import Bar, bar_figure
from feldspar.report.canvas import Figure
from feldspar.report.noise_scale_figures import noise_scale_sections
from feldspar.report.page import Section, Table, render_page
from feldspar.report.run_card import run_card
from feldspar.report.run_comparison import comparison_card, comparison_section
from feldspar.report.run_facts import RunFacts, read_facts
from feldspar.report.run_summary import OVERALL, DocumentCounts, Summary, read_summary
from feldspar.report.training_figures import training_figures

REPORT_NAME = "report.html"


def write_run_report(
    runs: Sequence[Path], out: Path | None = None, refresh_seconds: int = 0
) -> Path:
    """Write the page of ``runs``, by default into the first run's folder.

    With ``refresh_seconds``, the open page loads itself again. Raises UserError for a folder
    without metrics.
    """
    target = out or runs[0] / REPORT_NAME
    write_atomically(target, run_page(runs, refresh_seconds))
    return target


def run_page(runs: Sequence[Path], refresh_seconds: int = 0) -> str:
    """Return the page of one run, or of several side by side.

    Files that are damaged or missing are named in their place. Raises UserError for a folder
    without a step.
    """
    folders, facts = _named(runs), read_all(runs)
    recipes = {name: _recipe_of(run) for name, run in folders.items()}
    one = len(facts) == 1
    sections: list[Section | None] = []
    if not one:
        values = {name: found for name, (found, _) in recipes.items()}
        sections.append(comparison_section(facts, values))
    sections.append(Section("Training", figures=training_figures(facts)))
    sections += [missing_steps(run.name, run.rows) for run in facts]
    sections += noise_scale_sections({run.name: run.rows for run in facts})
    for name, run in folders.items():
        sections += summary_sections(name, run)
    sections += [
        Section("Recipe" if one else f"Recipe of {name}", texts=[text], folded=True)
        for name, (_, text) in recipes.items()
    ]
    card = run_card(facts[0]) if one else comparison_card(facts)
    names = ", ".join(run.name for run in facts)
    shown = [section for section in sections if section is not None]
    title = f"Run {names}" if one else f"Runs {names}"
    return render_page(title, "", shown, card, refresh_seconds)


def read_all(runs: Sequence[Path]) -> list[RunFacts]:
    """Read the facts of each run. Raises UserError for a folder without a step."""
    folders = _named(runs)
    records = {name: read_metrics(run) for name, run in folders.items()}
    unit = position_unit_of(records)
    return [read_facts(name, run, records[name], unit) for name, run in folders.items()]


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


def _recipe_of(run: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the run's recipe as values and as text, or None and why it cannot be read."""
    try:
        found = load_any_recipe(str(run.resolve()))
        return None if isinstance(found, LoadedDataRecipe) else plain(found), recipe_text(found)
    except FeldsparError as error:
        return None, f"It cannot be read: {error.what}"


def position_unit_of(records: dict[str, list[dict[str, Any]]]) -> str:
    """Return the unit of the runs' positions. Raises UserError for runs of both kinds."""
    kinds = {"tokens" if "tokens" in row else "images" for rows in records.values() for row in rows}
    if len(kinds) > 1:
        raise UserError(
            "runs of language models and runs on images cannot share a page",
            do="write one page of each kind",
        )
    return kinds.pop()


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


NAMES = {"model": "feldspar's model", "ngram": "token trigram"}


def held_out_figure(summary: Summary) -> Figure:
    """Return bars: bits per byte of the model and of each baseline over all sources."""
    values = {name: each[OVERALL] for name, each in summary.columns.items()}
    bars = [
        Bar(NAMES.get(name, name), value, is_reference=name != "model")
        for name, value in sorted(values.items(), key=lambda each: each[1])
    ]
    title = f"The model needs {values['model']:.3g} bits per byte of held-out text"
    others = [(value, name) for name, value in values.items() if name != "model"]
    if others:
        value, name = min(others)
        title += f"; the best baseline ({NAMES.get(name, name)}) needs {value:.3g}"
    return bar_figure(title, bars, "bits per byte, lower is better")


def documents_section(documents: DocumentCounts) -> Section:
    """Return a section: documents read, removed (with reasons) and kept."""
    rows: list[list[Any]] = [["read", documents.read]]
    rows += [[f"removed: {reason}", count] for reason, count in documents.removed.items()]
    rows.append(["kept", documents.kept])
    return Section("Documents", tables=[Table(["", "documents"], rows)])
