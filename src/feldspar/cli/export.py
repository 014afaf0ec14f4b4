"""``feldspar export``: a model as a folder that transformers loads, or a file for llama.cpp."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def export(
        run: Annotated[Path, typer.Argument(help="Run folder, imported folder or GGUF file.")],
        to: Annotated[Path, typer.Option("--out", "--to", help="Folder (or GGUF file) to write.")],
        file_format: Annotated[
            str,
            typer.Option(
                "--format", help="hf (a folder), gguf (for llama.cpp) or peft (LoRA's updates)."
            ),
        ] = "hf",
        architecture: Annotated[
            str,
            typer.Option(help="auto, or a name like gpt2, llama, or feldspar (with its own code)."),
        ] = "auto",
        checkpoint: Annotated[
            str, typer.Option(help="last, best, or a number of tokens.")
        ] = "last",
        dtype: Annotated[
            str | None,
            typer.Option(
                help="float32, bfloat16, float16; q8_0 (gguf). Default: float32, or as imported.",
                show_default=False,
            ),
        ] = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace it.")] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Write a model for transformers or llama.cpp.

        Weights, configuration and tokenizer are written. Multipliers that the class lacks are
        folded into the weights. GPT-2 and Llama shapes of runs use transformers' own classes;
        others bring their code along (trust_remote_code=True). An imported folder is written in the
        architecture that it came from.

        Example: feldspar export runs/first --out exported
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
            file_format=file_format,
        )
        model = written.model_dump(mode="json")
        if file_format == "gguf":
            if json:
                print_json({"file": str(to), "model": model})
            else:
                typer.echo(f"{to}: GGUF, vocabulary of {written.vocab_size:,}")
                _tell_next(to)
            return
        if file_format == "peft":
            adapter = read_json(to / "adapter_config.json")
            base = adapter["base_model_name_or_path"]
            if json:
                print_json({"folder": str(to), "base": base, "rank": adapter["r"]})
            else:
                typer.echo(f"{to}: LoRA of rank {adapter['r']} for {base}")
            return
        configuration = read_json(to / "config.json")
        hf_class = configuration["architectures"][0]
        if json:
            print_json({"folder": str(to), "class": hf_class, "model": model})
            return
        typer.echo(
            f"{to}: {hf_class}, vocabulary of {written.vocab_size:,}, {configuration['dtype']}"
        )
        _tell_next(to)


def _tell_next(to: Path) -> None:
    from feldspar.cli.next_steps import quoted, tell_next

    exported = quoted(to)
    tell_next(
        (f"feldspar evaluate {exported} --text FILE", "bits per byte, as what was exported"),
        (f"feldspar generate {exported} --prompt 'The old house'", "it continues a text"),
    )
