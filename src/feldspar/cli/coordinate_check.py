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
        """Judge every parametrization at small sizes of a recipe's kind of model, without data.

        Exit 1 when the recipe's own parametrization fails where it promises stability.
        Example: feldspar coordinate-check quickstart --quick
        """
        from feldspar.cli.console import print_json
        from feldspar.core.errors import EXIT_CHECK_FAILED
        from feldspar.recipe.load import load_recipe
        from feldspar.study.coordinate_check import check_recipe
        from feldspar.study.coordinate_page import write_check

        loaded = load_recipe(recipe, overrides)
        with loaded.locating_errors():
            check = check_recipe(loaded.recipe, quick)
        folder = out or Path("runs") / f"{loaded.recipe.name}-coordinate-check"
        write_check(check, folder)
        if json:
            print_json(check.as_dict())
        else:
            print_check(check)
            typer.echo(f"{folder / 'report.html'}")
        return EXIT_CHECK_FAILED if check.broken_claims else 0


def print_check(check: "CoordinateCheck") -> None:
    """Verdicts as a table, what the recipe's own breaks, and whether the controls spoke."""
    axes = check.by_axis
    typer.echo(f"{'parametrization':18}" + "".join(f"{axis:>10}" for axis in axes))
    for name in next(iter(axes.values())):
        verdicts = ("pass" if found[name].passed else "fail" for found in axes.values())
        typer.echo(f"{name:18}" + "".join(f"{verdict:>10}" for verdict in verdicts))
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
            f"warning: {name} is known to fail on {axis} and did not do so clearly: this check "
            "may see too little"
        )
