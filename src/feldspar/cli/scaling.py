"""``feldspar scaling``: a law of loss over training FLOPs, fitted to points or to a family."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from feldspar.plan.laws.law_fit import LawFit

Predict = Annotated[
    list[float] | None,
    typer.Option("--predict", metavar="FLOPS...", help="Predict the loss at these FLOPs."),
]
Convention = Annotated[
    str,
    typer.Option("--convention", help="How the FLOPs of runs are counted, as plan prints them."),
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    scaling = typer.Typer(help="Fit laws of loss over FLOPs, and train families for them.")
    app.add_typer(scaling, name="scaling")
    scaling.command()(fit)
    scaling.command()(run)


def fit(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="CSV|RUN...",
            help="A CSV with the columns flops, loss, or finished run folders.",
        ),
    ],
    predict: Predict = None,
    convention: Convention = "6P+attention",
    metric: Annotated[
        str, typer.Option("--metric", help="What is fitted of a run's last validation.")
    ] = "validation/loss",
    held_out: Annotated[
        int, typer.Option("--held-out", help="How many of the largest sizes judge the fit.")
    ] = 1,
    huber: Annotated[
        float | None,
        typer.Option("--huber", help="Residuals of log loss above this count by their size."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for scaling.json, figure and page.")
    ] = None,
    json: Json = False,
) -> None:
    """Fit a law to points, judge it on the largest size, predict beyond.

    Example: feldspar scaling fit points.csv --predict 1e21 1e22
    """
    import feldspar

    paths, flops = split_numbers(sources, predict or [])
    fitted = feldspar.fit_law(
        paths, held_out=held_out, huber=huber, convention=convention, metric=metric
    )
    show(fitted, flops, {} if fitted.basis is None else {"metric": metric}, out, json)


def run(
    recipe: Annotated[str, typer.Argument(help="Recipe file or shipped name.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value overrides, e.g. study.seeds=2")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder; default runs/NAME-scaling.")
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option(
            "--widths", help="Sizes by d_model, such as 64,96,128,192, instead of study.targets."
        ),
    ] = None,
    depth: Annotated[
        Literal["proportional", "fixed"],
        typer.Option("--depth", help="n_layers of --widths: grows with d_model, or stays."),
    ] = "proportional",
    convention: Convention = "6P+attention",
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes that train side by side.")
    ] = 1,
    predict: Predict = None,
    json: Json = False,
) -> None:
    """Train a family of sizes from one recipe and fit the law; again, it goes on where it stopped.

    Sizes are the recipe's study.targets; study.seeds and study.held_out count too.
    Example: feldspar scaling run cerebras-gpt/small --widths 64,96,128,192,256 --workers 2
    """
    from feldspar.recipe.load import load_recipe

    given, flops = split_numbers(overrides or [], predict or [])
    loaded = load_recipe(recipe, given)
    folder = out or Path("runs") / f"{loaded.recipe.name}-scaling"
    wanted = None if widths is None else parse_widths(widths)
    import feldspar

    family = feldspar.train_family(
        loaded, folder, widths=wanted, depth=depth, convention=convention, workers=workers
    )
    show(family.fit, flops, family.as_dict(folder) | {"recipe": loaded.recipe.name}, folder, json)
    if not json:
        from feldspar.cli.next_steps import quoted, tell_next

        reference, law = quoted(loaded.reference), quoted(folder)
        tell_next((f"feldspar plan {reference} --law {law}", "the loss that the law expects"))


def split_numbers(words: list[str], predict: list[float]) -> tuple[list[str], list[float]]:
    """Words, and FLOPs to predict: numbers after the first of ``--predict`` arrive as words."""
    if not predict:
        return words, []
    numbers = [word for word in words if is_number(word) and not Path(word).exists()]
    rest = [word for word in words if word not in numbers]
    return rest, [*predict, *map(float, numbers)]


def is_number(word: str) -> bool:
    """Tell whether a word is a number, such as 1e21."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def parse_widths(text: str) -> list[int]:
    """Widths separated by commas. Raises UserError for anything else."""
    from feldspar.core.errors import UserError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(
            "--widths: whole numbers above 0 are needed, separated by commas",
            found=text,
            allowed="such as 64,96,128",
        )
    return [int(part) for part in parts]


def show(
    fitted: "LawFit", flops: list[float], extra: dict[str, Any], out: Path | None, json: bool
) -> None:
    """Write and print a fitted law with its predictions."""
    from feldspar.cli.console import print_json
    from feldspar.plan.laws.law_report import law_record
    from feldspar.report.scaling_report import write_scaling

    record = law_record(fitted, flops)
    record |= extra | {"warnings": [*extra.get("warnings", ()), *record["warnings"]]}
    if out is not None:
        write_scaling(record, out)
    if json:
        print_json(record)
        return
    print_law(record)
    if out is not None:
        typer.echo(f"{out / 'report.html'}")


def print_law(record: dict[str, Any]) -> None:
    """Print a law: its judgement, its predictions and its warnings."""
    from feldspar.cli.tables import print_table
    from feldspar.report.scaling_report import FORM_NAMES, held_out_line, law_line

    points, basis = record["points"], record["basis"]
    meaning = "" if basis is None else f" by {basis['flops_convention']}, {basis['loss_unit']}"
    typer.echo(
        f"{len(points)} sizes, {points[0]['flops']:.4g} to {points[-1]['flops']:.4g} FLOPs"
        f"{meaning} ({record['decades']:.2f} decades)"
    )
    rows = []
    for form, fitted in record["forms"].items():
        judged = None if fitted is None else fitted["held_out"]
        if judged is None:
            rows.append((FORM_NAMES[form], "", "", "too few sizes to judge it"))
            continue
        held_out = f"{judged['predicted']:.4f} ({judged['error_percent']:+.2f} %)"
        chosen = "chosen" if form == record["form"] else ""
        residuals = f"{100 * fitted['residual_std']:.2f} %"
        rows.append((FORM_NAMES[form], residuals, held_out, chosen))
    print_table(("form", "residuals", "held-out size", ""), rows, indent=2)
    if record["disagreement_percent"] is not None:
        typer.echo(f"  the forms disagree there by {record['disagreement_percent']:+.2f} %")
    typer.echo(held_out_line(record["held_out"]))
    typer.echo(f"fitted to all points: {law_line(record)}")
    if record["predictions"]:
        print_table(
            ("FLOPs", "loss", "95 % of new runs"),
            (
                (f"{item['flops']:.4g}", f"{item['loss']:.4f}", _bounds(item["interval"]))
                for item in record["predictions"]
            ),
            indent=2,
        )
    for warning in record["warnings"]:
        typer.echo(f"warning: {warning}")


def _bounds(interval: list[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
