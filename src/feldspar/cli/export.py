"""``feldspar export``: a run's model as a folder that transformers loads."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def export(
        run: Annotated[Path, typer.Argument(help="Run folder, or an imported folder.")],
        to: Annotated[Path, typer.Option("--to", "--out", help="Folder to write.")],
        architecture: Annotated[
            str,
            typer.Option(help="auto, or a name like gpt2, llama, or feldspar (with its own code)."),
        ] = "auto",
        checkpoint: Annotated[str, typer.Option(help="last, or a number of tokens.")] = "last",
        dtype: Annotated[
            str | None,
            typer.Option(
                help="float32, bfloat16 or float16. Default: float32, or as imported.",
                show_default=False,
            ),
        ] = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Write a model's weights, configuration and tokenizer for Hugging Face transformers.

        Multipliers that the class lacks are folded into the weights. GPT-2 and Llama shapes of runs
        use transformers' own classes; others bring their code along (trust_remote_code=True). An
        imported folder is written in the architecture that it came from.

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
        configuration = read_json(to / "config.json")
        hf_class = configuration["architectures"][0]
        if json:
            print_json(
                {"folder": str(to), "class": hf_class, "model": written.model_dump(mode="json")}
            )
            return
        typer.echo(
            f"{to}: {hf_class}, vocabulary of {written.vocab_size:,}, {configuration['dtype']}"
        )
