"""``feldspar coordinate-check``: do activations keep their size as width, density, depth change?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from feldspar.study.coordinate_check import CoordinateCheck


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("coordinate-check")
    def coordinate_check(
        recipe: Annotated[str, typer.Argument(help="Recipe file or shipped name.")],
        overrides: Annotated[
            list[str] | None,
            typer.Argument(help="key=value overrides, e.g. parametrization.type=supar"),
        ] = None,
        quick: Annotated[
            bool, typer.Option("--quick", help="Two seeds and three points an axis.")
        ] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
        out: Annotated[
            Path | None,
            typer.Option("--out", help="Folder; default runs/NAME-coordinate-check."),
        ] = None,
    ) -> int:
        """Check that activations keep their size as models grow.

        Every parametrization is judged at small sizes of the recipe's kind of model, without data.
        Exit 1 when the recipe's own parametrization fails where it promises stability.
        Example: feldspar coordinate-check quickstart --quick
        """
        from feldspar.cli.console import print_json
        from feldspar.core.errors import EXIT_CHECK_FAILED
        from feldspar.recipe.load import load_recipe

        loaded = load_recipe(recipe, overrides)
        folder = out or Path("runs") / f"{loaded.recipe.name}-coordinate-check"
        import feldspar

        check = feldspar.coordinate_check(loaded, folder, quick=quick)
        if json:
            print_json(check.as_dict())
        else:
            print_check(check)
            typer.echo(f"{folder / 'report.html'}")
        return EXIT_CHECK_FAILED if check.broken_claims else 0


def print_check(check: "CoordinateCheck") -> None:
    """Print the verdicts, the bounds that the recipe's own breaks, and controls that passed."""
    from feldspar.cli.tables import print_table

    axes = check.by_axis
    print_table(
        ("parametrization", *axes),
        (
            (name, *("pass" if found[name].passed else "fail" for found in axes.values()))
            for name in next(iter(axes.values()))
        ),
    )
    typer.echo(check.outcome)
    for axis in check.broken_claims:
        judgement = axes[axis][check.own]
        for bound in judgement.faults:
            typer.echo(
                f"  {axis}: {bound.measure}: slope {judgement.slopes[bound.measure]:.2f}, "
                f"allowed {bound.interval}"
            )
    for axis, name in check.silent_controls:
        typer.echo(
            f"warning: {name} is known to fail on {axis} and did not clearly fail here: this "
            "check may miss failures"
        )
