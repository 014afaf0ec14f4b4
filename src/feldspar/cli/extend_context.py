"""``feldspar extend-context``: a model that reads texts longer than those of its training."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("extend-context")
    def extend_context(
        model: Annotated[Path, typer.Argument(help="Model folder (imported, or Hugging Face).")],
        to: Annotated[Path, typer.Option("--out", "--to", help="Folder to write.")],
        factor: Annotated[
            float | None, typer.Option(help="Wanted length / trained length.", show_default=False)
        ] = None,
        train_length: Annotated[
            int | None,
            typer.Option(
                help="Trained length; the factor grows with the text.", show_default=False
            ),
        ] = None,
        kind: Annotated[str, typer.Option(help="linear, ntk, yarn or llama3.")] = "linear",
        length: Annotated[
            int | None,
            typer.Option(help="Longest context in tokens. Default: factor x the model's."),
        ] = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Let a model read texts longer than those of its training.

        The positions (ALiBi or rotary) are scaled; the weights stay. A table of learned
        positions is stretched.

        Example: feldspar extend-context imported --factor 2 --out longer
        """
        from feldspar.cli.console import print_json
        from feldspar.cli.next_steps import quoted, tell_next
        from feldspar.train.extend_context import Extension, write_extended

        wanted = Extension(kind, factor, train_length, length)
        written = write_extended(model, to, wanted, overwrite)
        scaling = written.scaling.model_dump(mode="json", exclude_none=True)
        tokens = written.settings.max_sequence_length
        if json:
            print_json({"folder": str(to), "position_scaling": scaling, "tokens": tokens})
            return
        named = ", ".join(f"{key} {value}" for key, value in scaling.items())
        typer.echo(f"{to}: {tokens:,} tokens, position_scaling {named}")
        folder = quoted(to)
        tell_next(
            (f"feldspar evaluate {folder} --text FILE", "bits per byte of a long text"),
            (f"feldspar generate {folder} --prompt 'The old house'", "it continues a text"),
        )
