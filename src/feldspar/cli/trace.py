"""``feldspar trace``: the chain of folders that something was made from."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def trace(
        folder: Annotated[Path, typer.Argument(help="A documents, shards or release folder.")],
        json_output: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Print what made a folder, from what, and its counts.

        Example: feldspar trace data/quickstart/shards
        """
        from feldspar.cli.console import print_json
        from feldspar.cli.tables import print_table

        record = read_chain_link(folder)
        if json_output:
            print_json(record)
            return
        typer.echo(f"{folder}: {record['kind']}, made by feldspar {record['version']}")
        typer.echo(f"  digest   {record['digest']}")
        typer.echo(f"  command  {record['command'] or 'unknown'}")
        for name, digest in record["parents"].items():
            typer.echo(f"  from     {name} {digest}")
        typer.echo(f"  files    {len(record['files'])}")
        for key, value in record["counts"].items():
            if not isinstance(value, dict | list):
                typer.echo(f"  {key:8} {value}")
        if rows := parts(record["counts"]):
            print_table(("split", "source", "documents", "size"), rows, left=2)


def parts(counts: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return split, source, documents and size of the parts of a folder, where it has any."""
    found = [
        (split, source, each, f"{each['tokens']:,} tokens")
        for split, sources in counts.get("splits", {}).items()
        for source, each in sources.items()
        if "tokens" in each
    ]
    found += [
        (split, source, each, f"{each['bytes']:,} bytes")
        for source, kept in counts.get("by_source", {}).items()
        for split, each in kept.get("splits", {}).items()
    ]
    found.sort(key=lambda row: row[:2])
    return [(split, source, f"{each['documents']:,}", size) for split, source, each, size in found]


def read_chain_link(folder: Path) -> dict[str, Any]:
    """Read the manifest of any kind of folder and compare every file with its checksum.

    Raises UserError when there is none or a file is not listed, RunError when a file differs.
    """
    from feldspar.core.artifact import open_artifact
    from feldspar.core.manifest import manifest_text

    opened = open_artifact(folder)
    opened.verify()
    return json.loads(manifest_text(opened.manifest))
