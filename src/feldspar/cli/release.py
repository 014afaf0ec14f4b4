"""``feldspar release``: a run as a folder that ``transformers`` loads, with card and manifest."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def release(
        path: Annotated[Path, typer.Argument(help="Run folder, or with --verify a release.")],
        to: Annotated[
            Path | None, typer.Option("--out", "--to", help="Folder; default RUN/release.")
        ] = None,
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="Replace a release that is there.")
        ] = False,
        verify: Annotated[
            bool,
            typer.Option(
                "--verify", help="Compare a release with its manifest; exit 1 where it differs."
            ),
        ] = False,
    ) -> int:
        """Release a run. Example: feldspar release runs/quickstart --out releases/quickstart"""
        import feldspar
        from feldspar.core.errors import EXIT_CHECK_FAILED

        if verify:
            problems = feldspar.verify_release(path)
            typer.echo("\n".join(problems) if problems else f"{path} is whole")
            return EXIT_CHECK_FAILED if problems else 0
        typer.echo(str(feldspar.release(path, to, overwrite=overwrite)))
        return 0
