"""``feldspar new``: a recipe for files of one's own."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from feldspar.begin.new_recipe import NewRecipe
    from feldspar.begin.pile import Pile

SHOWN = 5
"""Lines of one kind that are shown."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def new(
        paths: Annotated[list[Path], typer.Argument(help="Files and folders that hold your text.")],
        minutes: Annotated[
            float | None,
            typer.Option("--minutes", help="Minutes of training on this machine; default 5."),
        ] = None,
        size: Annotated[
            str | None,
            typer.Option("--size", help="Parameters, as 2M; default: by minutes and text."),
        ] = None,
        text_field: Annotated[
            str | None,
            typer.Option("--text-field", help="Field of JSON lines or Parquet with the text."),
        ] = None,
        start_from: Annotated[
            Path | None,
            typer.Option("--start-from", help="Folder of an open model to train on."),
        ] = None,
        out: Annotated[Path, typer.Option("--out", help="Recipe to write.")] = Path("recipe.yaml"),
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Write a recipe that trains a model on your own files.

        Example: feldspar new docs.jsonl notes.txt --minutes 10 --out my-recipe.yaml
        """
        from feldspar.begin.new_recipe import DEFAULT_MINUTES, check_request, parameters_of
        from feldspar.cli.console import print_json

        asks = sys.stdin.isatty() and sys.stdout.isatty() and not json
        parameters = None if size is None else parameters_of(size)
        spent = DEFAULT_MINUTES if minutes is None else minutes
        check_request(out, spent, parameters, start_from, overwrite)
        pile = _pile(paths, text_field, asks)
        if not json:
            _print_pile(pile)
        if minutes is None:
            minutes = _minutes(DEFAULT_MINUTES) if asks else DEFAULT_MINUTES
            if not asks and not json:
                typer.echo(f"{minutes:g} minutes of training, unless --minutes says otherwise")
            if asks and size is None and start_from is None:
                answer = typer.prompt("Parameters of the model, as 2M", default="by minutes")
                parameters = None if answer == "by minutes" else parameters_of(answer)
            check_request(out, minutes, parameters, start_from, overwrite)
        from feldspar.begin.new_recipe import write_new_recipe

        made = write_new_recipe(pile, out, minutes, parameters, start_from)
        if json:
            print_json(made.record())
        else:
            _print_choice(made)


def _pile(paths: list[Path], text_field: str | None, asks: bool) -> "Pile":
    """Measure the text; on a terminal, ask which of several fields holds it."""
    from feldspar.begin.fields import AmbiguousFieldError
    from feldspar.begin.pile import measure_pile

    try:
        return measure_pile(paths, text_field)
    except AmbiguousFieldError as error:
        if not asks:
            raise
        typer.echo(error.what)
        for each in error.alike:
            typer.echo(f"  {each.name}: {each.characters:,.0f} characters on average")
        return measure_pile(paths, typer.prompt("Field to train on", default=error.alike[0].name))


def _minutes(default: float) -> float:
    return typer.prompt("Minutes of training on this machine", default=default, type=float)


def _print_pile(pile: "Pile") -> None:
    """Print what was found: a row for each source, and the files that no reader takes."""
    from feldspar.begin.formats import advice
    from feldspar.begin.written import size_of
    from feldspar.cli.tables import print_table
    from feldspar.core.readable import counted

    rows = []
    for source in pile.sources:
        about = "" if source.exact else "about "
        rows.append(
            (
                source.name,
                source.finding.format,
                "-" if source.fields is None else source.fields.text,
                f"{source.files:,}",
                source.documents_text,
                f"{about}{size_of(source.text_bytes)}",
                size_of(source.mean_bytes),
                source.letters,
            )
        )
    headers = ("source", "format", "field", "files", "documents", "text", "mean", "letters")
    print_table(headers, rows, left=3)
    bad = [line for source in pile.sources for line in source.finding.bad]
    for line in bad[:SHOWN]:
        typer.echo(f"left out: {line}")
    if len(bad) > SHOWN:
        typer.echo(f"left out: {len(bad) - SHOWN} more, which the recipe names")
    for ending, count in pile.search.passed_over.most_common(SHOWN):
        hint = advice(ending)
        files = counted(count, f"{ending} file") if ending.startswith(".") else ending
        typer.echo(f"not read: {files}" + (f" ({hint})" if hint else ""))


def _print_choice(made: "NewRecipe") -> None:
    """Print what was chosen, and the next commands."""
    from feldspar.begin.written import next_commands
    from feldspar.cli.next_steps import tell_next
    from feldspar.core.readable import duration

    choice = made.choice
    bound = {"minutes": "", "text": "; more would read the text too often"}[choice.bound_by]
    typer.echo(f"{made.places.recipe}: written")
    typer.echo(f"  parameters  {choice.parameters:,}")
    typer.echo(f"  vocabulary  {choice.vocabulary:,} tokens of {choice.bytes_per_token:.1f} bytes")
    typer.echo(
        f"  tokens      {choice.tokens:,}: {choice.epochs:.2g} passes over about "
        f"{choice.text_tokens:,}{bound}"
    )
    typer.echo(
        f"  training    {duration(choice.seconds)} at {choice.pace.undisturbed:,.0f} tokens a "
        "second, measured on this machine; building the data comes before"
    )
    for line in made.warnings():
        typer.echo(f"warning: {line}")
    purposes = ("time, memory and schedule", "build the data, then train", "try it", "give it away")
    tell_next(*zip(next_commands(made.places), purposes, strict=True))
