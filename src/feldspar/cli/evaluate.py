"""``feldspar evaluate``: bits per byte of a run or an exported model, and lm-eval's tasks."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def evaluate(
        model: Annotated[Path, typer.Argument(help="Run folder or Hugging Face folder.")],
        text: Annotated[
            list[Path] | None, typer.Option("--text", help="A UTF-8 text file; may be repeated.")
        ] = None,
        tasks: Annotated[
            str | None, typer.Option("--tasks", help="Tasks of lm-eval, separated by commas.")
        ] = None,
        include_path: Annotated[
            Path | None, typer.Option("--include-path", help="Folder of task files for lm-eval.")
        ] = None,
        split: Annotated[
            str, typer.Option("--split", help="Held-out documents of a run: validation or test.")
        ] = "test",
        limit: Annotated[
            int | None,
            typer.Option("--limit", min=1, help="Tokens of each source, or items of each task."),
        ] = None,
        baselines: Annotated[
            bool,
            typer.Option(
                "--baselines",
                help="Compressors and a trigram beside a run's figures; "
                "for pairs the most frequent label and a bag of words.",
            ),
        ] = False,
        infilling: Annotated[
            bool,
            typer.Option("--infilling", help="Fill gaps in a run's held-out documents instead."),
        ] = False,
        pairs: Annotated[
            Path | None,
            typer.Option("--pairs", help="JSON lines of pairs with labels, for a run's template."),
        ] = None,
        checkpoint: Annotated[
            str, typer.Option("--checkpoint", help="Of a run: last, or its number of tokens.")
        ] = "last",
        length_sweep: Annotated[
            str | None,
            typer.Option("--length-sweep", help="Recipe whose evaluation.length_sweep is run."),
        ] = None,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Measure bits per byte on held-out documents or text, lm-eval's tasks, or longer contexts.

        Example: feldspar evaluate runs/quickstart --text README.md --json
        """
        check_options(
            text=bool(text),
            tasks=bool(tasks),
            baselines=baselines,
            infilling=infilling,
            pairs=pairs is not None,
            length_sweep=bool(length_sweep),
        )
        import feldspar
        from feldspar.cli import evaluate_figures as figures

        opened = feldspar.open_model(model, checkpoint=checkpoint)
        if length_sweep:
            figures.show_lengths(opened, length_sweep, text or [], split, json)
        elif tasks:
            figures.show_tasks(opened, tasks, include_path, limit, json)
        elif text:
            figures.show_text(opened, text, json)
        elif pairs:
            figures.show_pairs(opened, pairs, limit, baselines, json)
        elif infilling:
            figures.show_infilling(opened, split, limit, json)
        else:
            figures.show_held_out(opened, split, limit, baselines, json)


def check_options(
    *, text: bool, tasks: bool, baselines: bool, infilling: bool, pairs: bool, length_sweep: bool
) -> None:
    """Raise UserError for options that ask for two things at once."""
    from feldspar.core.errors import UserError

    if text and tasks:
        raise UserError("give --text or --tasks, not both")
    if pairs and (text or tasks or infilling or length_sweep):
        raise UserError("--pairs goes with a run and --baselines, --limit, --checkpoint only")
    if baselines and (text or tasks):
        raise UserError("--baselines goes with --pairs, or a run's held-out documents only")
    if infilling and (text or tasks or baselines):
        raise UserError("--infilling goes with a run's held-out documents only, by itself")
    if length_sweep and (tasks or baselines or infilling):
        raise UserError("--length-sweep goes without --tasks, --baselines and --infilling")
