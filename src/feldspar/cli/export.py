"""``feldspar export``: a run's model as a folder that transformers loads."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def export(
        run: Annotated[Path, typer.Argument(help="Run folder.")],
        to: Annotated[Path, typer.Option("--to", "--out", help="Folder to write.")],
        architecture: Annotated[
            str, typer.Option(help="auto, gpt2, llama, ministral, or feldspar (with its own code).")
        ] = "auto",
        checkpoint: Annotated[str, typer.Option(help="last, or a number of tokens.")] = "last",
        dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Write a run's weights, configuration and tokenizer for Hugging Face transformers.

        Multipliers of the parametrization are folded into the weights. GPT-2 and Llama shapes use
        transformers' own classes; others bring their code along (trust_remote_code=True).

        Example: feldspar export runs/first --to exported
        """
        import feldspar
        from feldspar.cli.console import print_json
        from feldspar.core.json_files import read_json

        written = feldspar.export(
            run,
            to,
            architecture=architecture,
            checkpoint=checkpoint,
            dtype=dtype,
            overwrite=overwrite,
        )
        hf_class = read_json(to / "config.json")["architectures"][0]
        if json:
            print_json(
                {"folder": str(to), "class": hf_class, "model": written.model_dump(mode="json")}
            )
            return
        typer.echo(f"{to}: {hf_class}, vocabulary of {written.vocab_size:,}, {dtype}")
