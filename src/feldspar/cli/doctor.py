"""``feldspar doctor``: what this machine has, what is missing for which command, and what to do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.core.errors import EXIT_CHECK_FAILED

if TYPE_CHECKING:
    from feldspar.runtime.doctor import Examination


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def doctor(
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> int:
        """Examine the machine and the installation, and tell what to do; exit 1 when the
        quickstart would not run.

        Example: feldspar doctor
        """
        from feldspar.cli.console import print_json
        from feldspar.runtime.doctor import examine_machine

        examination = examine_machine(Path.cwd())
        if json:
            print_json(examination.values())
        else:
            show(examination)
        return 0 if examination.quickstart_runs else EXIT_CHECK_FAILED


def show(examination: "Examination") -> None:
    """Print the facts, the extras, and each finding with its command."""
    from feldspar.cli.tables import print_table
    from feldspar.core.requirements import USES

    print_table(("", ""), examination.machine.items(), left=2)
    if examination.extras:
        typer.echo()
        print_table(
            ("extra", "serves", "state"),
            (
                (extra.name, USES[extra.name], extra.install if extra.unfit else "ready")
                for extra in examination.extras
            ),
            left=3,
        )
    typer.echo()
    for finding in examination.findings:
        mark = "problem" if finding.stops_quickstart else "advice"
        typer.echo(f"{mark}: {finding.what}\n  do: {finding.do}")
    runs = examination.quickstart_runs
    typer.echo(
        "the quickstart can run here: feldspar quickstart"
        if runs
        else "the quickstart cannot run here: mend the problems above, then: feldspar doctor"
    )
