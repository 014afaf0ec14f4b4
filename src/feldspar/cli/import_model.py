"""``feldspar import``: a Hugging Face folder as weights that a recipe can start from."""

from pathlib import Path
from typing import Annotated

import typer

from feldspar.core.artifact import require_writable
from feldspar.core.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("import")
    def import_folder(
        folder: Annotated[Path, typer.Argument(help="Folder with config.json and safetensors.")],
        to: Annotated[Path, typer.Option("--to", "--out", help="Folder to write.")],
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Read a GPT-2, Llama, Ministral or feldspar model; no code of the folder is run.

        Prints the recipe's model section that fits the weights.

        Example: feldspar import downloads/gpt2 --to imported
        """
        require_writable(to, "model", overwrite)
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder")
        from feldspar.cli.console import print_json
        from feldspar.huggingface.adapter import STANDARD
        from feldspar.huggingface.import_folder import (
            import_model,
            model_record,
            write_imported,
        )

        model = import_model(folder)
        write_imported(model, to, overwrite)
        record = model_record(model)
        start = {"type": "huggingface", "path": str(to)}
        if json:
            print_json({"folder": str(to), **record, "start_from": start})
            return
        import sys

        from ruamel.yaml import YAML

        sections = {"start_from": start, "model": record["model"]}
        if model.description.parametrization != STANDARD:
            sections["parametrization"] = record["parametrization"]
        typer.echo(f"{to}: written; in a recipe:\n")
        YAML().dump(sections, sys.stdout)
