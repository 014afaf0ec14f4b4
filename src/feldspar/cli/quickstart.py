"""``feldspar quickstart``: raw text to a released model; the result of each stage is printed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from feldspar.tokens.shards.build_shards import ShardReport
    from feldspar.train.evaluation import HeldOutFigures
    from feldspar.train.lifecycle import RunResult

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. phases.0.length='2e6 tokens'")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def quickstart(
        overrides: Overrides = None,
        out: Annotated[
            Path | None, typer.Option("--out", help="Run folder; default runs/NAME.")
        ] = None,
        offline: Annotated[
            bool, typer.Option("--offline", help="Use only what is installed already.")
        ] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Go the whole way: from text to a released model.

        The data are real, and a CPU is enough: it takes minutes. Each stage prints its result.

        Example: feldspar quickstart
        """
        from feldspar.core.json_files import read_json
        from feldspar.recipe.load import load_recipe

        choice = ["choose.data=offline"] if offline else []
        loaded = load_recipe("quickstart", [*choice, *(overrides or [])])
        folder = out or Path("runs") / loaded.recipe.name
        from feldspar.cli.console import print_json
        from feldspar.cli.next_steps import quoted, tell_next
        from feldspar.release.quickstart import SUMMARY_NAME, Quickstart, is_done

        page = folder / "report.html"
        done = is_done(folder, loaded)
        if not done:
            work = Quickstart(loaded, folder, offline)
            if not json:
                work.begun, work.ended = show_beginning, show_result
            page = work.run()
        if json:
            places = {"run": folder, "release": folder / "release", "report": page}
            told = {name: str(place) for name, place in places.items()}
            print_json(told | read_json(folder / SUMMARY_NAME))
            return
        if done:
            typer.echo(f"{folder} is done already")
        typer.echo(f"release: {folder / 'release'}\nreport:  {page}")
        released = quoted(folder / "release")
        tell_next(
            (f"feldspar generate {released} --prompt 'The old house'", "it continues a text"),
            ("feldspar recipe copy quickstart first.yaml", "a recipe of your own to change"),
        )


def show_beginning(name: str) -> None:
    """Print the name of a stage."""
    typer.echo(f"== {name}")


def show_result(name: str, result: Any) -> None:
    """Print the result of a stage."""
    from feldspar.cli.corpus import tell_documents

    shown = {
        "documents": tell_documents,
        "tokens": tell_shards,
        "training": tell_training,
        "evaluation": tell_figures,
        "release": tell_sample,
    }
    shown[name](result)


def tell_training(result: "RunResult") -> None:
    """Print the length of the run."""
    typer.echo(f"{result.position:,} tokens in {result.steps:,} steps")


def tell_sample(samples: list[str]) -> None:
    """Print the first text that the released model wrote."""
    typer.echo(f"\n{samples[0]}\n")


def tell_shards(report: "ShardReport") -> None:
    """Print tokens, share of training and fertility of each source."""
    from feldspar.cli.tables import print_table

    train = report.splits["train"]
    total = sum(counts.tokens for counts in train.values())
    print_table(
        ("source", "tokens", "share", "bytes/token", "tokens/word"),
        (
            (
                name,
                f"{counts.tokens:,}",
                f"{counts.tokens / total:.1%}",
                f"{counts.bytes_per_token:.2f}",
                f"{counts.tokens_per_word:.2f}",
            )
            for name, counts in train.items()
        ),
    )


def tell_figures(figures: "HeldOutFigures") -> None:
    """Print bits per byte on held-out documents, of the model and of every baseline."""
    from feldspar.cli.tables import print_table
    from feldspar.release.quickstart import figures_record

    record = figures_record(figures)
    columns = {"model": record["bits_per_byte"]} | record["baselines_by_source"]
    if figures.loss.warning:
        typer.echo(figures.loss.warning)
    typer.echo("held-out bits per byte (lower is better)")
    print_table(
        ("source", *columns),
        (
            (source, *(f"{values[source]:.3f}" for values in columns.values()))
            for source in record["bits_per_byte"]
        ),
    )
