"""``feldspar import``: an open model as weights that a recipe can start from."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("import")
    def import_model(
        source: Annotated[
            str,
            typer.Argument(help="Folder with config.json and safetensors, GGUF file, or base."),
        ],
        to: Annotated[Path, typer.Option("--out", "--to", help="Folder to write.")],
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
        convert_pickles: Annotated[
            bool,
            typer.Option("--convert-pickles", help="Read pickled weights, tensors only, apart."),
        ] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Read an open model, as weights that a recipe starts from.

        No code of the model is run; its architecture must be a known one.

        A base is the name of a model that a package holds, such as smollm2-135m; an unknown name
        is answered with the list. Prints the recipe's sections that fit the weights.

        Example: feldspar import downloads/gpt2 --out imported
        """
        import feldspar
        from feldspar.cli.console import print_json
        from feldspar.cli.next_steps import quoted, tell_next
        from feldspar.core.json_files import read_json

        feldspar.import_model(source, to, overwrite=overwrite, convert_pickles=convert_pickles)
        record = read_json(to / "model.json")
        start = {"type": "huggingface", "path": str(to)}
        if json:
            print_json({"folder": str(to), **record, "start_from": start})
            return
        import sys

        from ruamel.yaml import YAML

        sections = {"start_from": start, "model": record["model"]}
        if any(name.endswith("_multiplier") for name in record["parametrization"]):
            sections["parametrization"] = record["parametrization"]
        typer.echo(f"{to}: written; in a recipe:\n")
        YAML().dump(sections, sys.stdout)
        imported = quoted(to)
        tell_next(
            (
                f"feldspar generate {imported} --prompt 'The old house'",
                "it continues a text",
            ),
            (f"feldspar chat {imported}", "talk with it, if it has a chat template"),
            (f"feldspar evaluate {imported} --text FILE", "bits per byte of a text"),
            ("feldspar config explain start_from", "train it further"),
        )
