"""``feldspar plan``: what a recipe costs and what a budget buys, before anything is spent."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feldspar.cli.next_steps import tell_next

if TYPE_CHECKING:
    from feldspar.recipe.load import LoadedRecipe

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. choose.size=590M")
]

MeasureProducts = Annotated[
    bool,
    typer.Option(
        "--measure-products",
        help="Time products of masked matrices on this machine: the time that they save.",
    ),
]

Measured = Annotated[
    Path | None, typer.Option("--measured", help="A run folder: time at its speed.")
]

Law = Annotated[
    str | None,
    typer.Option("--law", help="Law, by name or scaling.json: expected loss, or a split."),
]

Budget = Annotated[
    float | None, typer.Option("--budget", help="Training FLOPs: size the recipe to them.")
]

LawFlops = Annotated[
    float | None,
    typer.Option("--law-flops", help="Training FLOPs as the law's own paper counts them."),
]

Inference = Annotated[
    bool, typer.Option("--inference", help="Memory and FLOPs of generating text.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def plan(
        recipe: Annotated[str, typer.Argument(help="Recipe file or shipped name.")],
        overrides: Overrides = None,
        table: Annotated[
            bool, typer.Option("--table", help="Print the parametrization table too.")
        ] = False,
        device: Annotated[
            str | None, typer.Option("--device", help="Accelerator, e.g. H100: memory and time.")
        ] = None,
        devices: Annotated[
            int | None, typer.Option("--devices", help="How many devices train together.")
        ] = None,
        utilisation: Annotated[
            float | None,
            typer.Option("--utilisation", help="Share of the device's peak; default 0.4."),
        ] = None,
        tokens_per_second: Annotated[
            float | None, typer.Option("--tokens-per-second", help="Speed of all devices: time.")
        ] = None,
        measured: Measured = None,
        budget: Budget = None,
        tokens_per_parameter: Annotated[
            float | None,
            typer.Option("--tokens-per-parameter", help="Split of the budget; default 20."),
        ] = None,
        law: Law = None,
        law_flops: LawFlops = None,
        measure_products: MeasureProducts = False,
        inference: Inference = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Print what a recipe costs, or what a budget buys.

        Nothing is trained or read but the recipe. The time is that on this machine, an estimate,
        unless --device, --tokens-per-second or --measured names another speed.

        Example: feldspar plan cerebras-gpt/paper choose.parametrization=mup --budget 1e19
        --device H100 --devices 8
        """
        from feldspar.cli.console import print_json
        from feldspar.cli.plan_figures import print_parametrization, print_plan
        from feldspar.recipe.load import load_recipe

        loaded = load_recipe(recipe, overrides)
        from feldspar.train.plan_questions import Questions, answer  # loads torch

        questions = Questions(
            device,
            devices,
            utilisation,
            tokens_per_second,
            measured,
            budget,
            tokens_per_parameter,
            law,
            law_flops,
            measure_products,
            inference,
        )
        planned, summary = answer(loaded, questions)
        if table:
            from feldspar.plan.summary import effective_table

            summary |= effective_table(planned.table, planned.recipe.optimizer)
        if json:
            print_json(summary)
            return
        from feldspar.train.time_here import time_here

        here = time_here(planned) if summary["time"] is None else None
        print_plan(summary, here)
        if table:
            print_parametrization(summary)
        _tell_next(loaded, summary, runs_here=here is None or here.hours is not None)


def _tell_next(loaded: "LoadedRecipe", summary: dict[str, Any], runs_here: bool) -> None:
    sizing = summary["sizing"]
    overrides = loaded.overrides if sizing is None else sizing["overrides"]
    arguments = shlex.join([loaded.reference, *overrides])
    if runs_here:
        tell_next((f"feldspar train {arguments}", "build what is missing, then train"))
    else:
        tell_next((f"feldspar plan {arguments} --device H100", "time and memory elsewhere"))
