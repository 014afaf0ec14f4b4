"""``feldspar adapt``: a model with rows for the tokens of an extended tokenizer."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def adapt(
        base: Annotated[Path, typer.Argument(help="Model folder (imported, or Hugging Face).")],
        tokenizer: Annotated[
            Path, typer.Option(help="Folder of a tokenizer that extends the model's.")
        ],
        to: Annotated[Path, typer.Option("--out", "--to", help="Folder to write.")],
        initialisation: Annotated[
            str,
            typer.Option(
                help="random, mean, mean_cov, normal_matched, subword_mean; with a donor "
                "linear_projection, similar_topk, focus."
            ),
        ] = "subword_mean",
        donor: Annotated[
            Path | None, typer.Option(help="Model folder whose vocabulary has the new tokens.")
        ] = None,
        pad_rows_to: Annotated[
            int, typer.Option(min=1, help="Round the number of rows up to a multiple of this.")
        ] = 1,
        seed: Annotated[int, typer.Option(help="Seed of random rows.")] = 0,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Extend a model's vocabulary by the tokens of a tokenizer.

        Old rows stay bit for bit, and new ones begin as asked.
        `new_rows.jsonl` in the folder says for each new row which old tokens it was made of.

        Example: feldspar adapt imported --tokenizer data/tokenizer --out adapted
        """
        import feldspar
        from feldspar.cli.console import print_json
        from feldspar.cli.next_steps import quoted, tell_next
        from feldspar.cli.tables import print_table

        done = feldspar.adapt(
            base,
            to,
            tokenizer=tokenizer,
            initialisation=initialisation,
            donor=donor,
            pad_rows_to=pad_rows_to,
            seed=seed,
            overwrite=overwrite,
        )
        if json:
            print_json({"folder": str(to)} | done)
            return
        typer.echo(
            f"{to}: {done['old_rows']:,} rows kept, {done['new_rows']:,} new "
            f"({done['initialisation']}), {done['padding_rows']:,} of padding"
        )
        print_table(
            ("rows made of", "number"),
            ((kind, f"{count:,}") for kind, count in done["row_sources"].items()),
        )
        folder = quoted(to)
        tell_next(
            ("feldspar config explain start_from", f"train it further: path: {to}"),
            (f"feldspar generate {folder} --prompt 'The old house'", "try it"),
        )
