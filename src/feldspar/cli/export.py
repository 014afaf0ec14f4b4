"""``feldspar export``: a run's model as a folder that transformers loads."""

from pathlib import Path
from typing import Annotated

import typer

from feldspar.core.artifact import require_writable
from feldspar.core.errors import UserError

DTYPES = ("float32", "bfloat16", "float16")


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
        if dtype not in DTYPES:
            raise UserError(f"--dtype {dtype} is not known", allowed=DTYPES)
        require_writable(to, "model", overwrite)
        from feldspar.runtime.run_folder import require_run

        require_run(run)
        import torch

        from feldspar.cli.console import print_json
        from feldspar.core.json_files import read_json
        from feldspar.huggingface.export_folder import export_model
        from feldspar.train.load import load_run

        loaded = load_run(run, checkpoint)
        settings = export_model(
            dict(loaded.decoder.named_parameters()),
            loaded.decoder.settings,
            loaded.forward,
            loaded.tokenizer_folder,
            to,
            architecture,
            getattr(torch, dtype),
            overwrite=overwrite,
            masks=loaded.masks,
            scaling=loaded.decoder.position_scaling,
            soft_prompt=loaded.soft_prompt,
        )
        hf_class = read_json(to / "config.json")["architectures"][0]
        if json:
            print_json(
                {"folder": str(to), "class": hf_class, "model": settings.model_dump(mode="json")}
            )
            return
        typer.echo(f"{to}: {hf_class}, vocabulary of {settings.vocab_size:,}, {dtype}")
