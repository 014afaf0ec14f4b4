"""``feldspar plan``: parameters, tokens, steps and FLOPs of a recipe before anything is spent."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from feldspar.plan import Plan

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. choose.size=590M")
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
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Print what a recipe will cost and do, without data, weights or torch.

        Example: feldspar plan cerebras-gpt/paper choose.size=590M --table
        """
        from feldspar.cli.console import print_json
        from feldspar.plan import effective_table, plan_recipe
        from feldspar.recipe import load_recipe

        loaded = load_recipe(recipe, overrides)
        with loaded.locating_errors():
            planned = plan_recipe(loaded.recipe)
        summary = planned.summary()
        if table:
            summary |= effective_table(planned.table, planned.recipe.optimizer)
        if json:
            print_json(summary)
            return
        print_plan(planned)
        if table:
            print_table(planned)


def print_plan(planned: "Plan") -> None:
    """The plan for people: totals, then one row a phase."""
    summary = planned.summary()
    counts = summary["parameters"]
    typer.echo(f"{summary['name']}")
    typer.echo(
        f"  parameters  {counts['total']:,} ({counts['non_embedding']:,} without embeddings)"
        + (f", {counts['active']:,} active" if "active" in counts else "")
    )
    typer.echo(
        f"  tokens      {summary['tokens']:,} "
        f"({summary['tokens'] / counts['total']:.1f} per parameter)"
    )
    typer.echo(f"  steps       {summary['steps']:,} (warm-up {summary['warmup_steps']:,})")
    for convention, flops in summary["flops"].items():
        note = " (FLOPs not realised: masked products run dense)" if convention == "ledger" else ""
        typer.echo(f"  FLOPs       {flops:.4g} by {convention}{note if 'active' in counts else ''}")
    for phase in summary["phases"]:
        first, last = phase["sequences"]
        batch = f"{first}" if first == last else f"{first} to {last}"
        rate = " to ".join(f"{value:.4g}" for value in phase["learning_rate"])
        typer.echo(
            f"  phase {phase['name']}: {phase['tokens']:,} tokens, {phase['steps']:,} steps of "
            f"{batch} sequences x {phase['context_length']}, learning rate {rate}"
        )
        if phase["active_parameters"] < counts["total"]:
            typer.echo(
                f"  phase {phase['name']}: {phase['active_parameters']:,} active parameters, "
                f"{phase['ledger']['total']:.4g} FLOPs by ledger "
                f"({phase['ledger']['total_causal']:.4g} with causal attention)"
            )
    for warning in summary["warnings"]:
        typer.echo(f"  warning     {warning}")


def print_table(planned: "Plan") -> None:
    """The parametrization table for people."""
    from feldspar.plan import effective_table

    values = effective_table(planned.table, planned.recipe.optimizer)
    typer.echo(f"parametrization {values['type']}")
    for name, factor in values["forward"].items():
        typer.echo(f"  forward multiplier {name:9} {factor:.7g}")
    width = max(len(row["name"]) for row in values["tensors"])
    header = ("role", "shape", "density", "init_std", "learning_rate", "weight_decay", "epsilon")
    typer.echo(f"  {'tensor':{width}} {header[0]:9} {header[1]:14} " + " ".join(header[2:]))
    for row in values["tensors"]:
        shape = "x".join(map(str, row["shape"]))
        typer.echo(
            f"  {row['name']:{width}} {row['role']:9} {shape:14} {row['density']:<7.5g} "
            f"{row['init_std']:<8.6g} {row['learning_rate']:<13.6g} "
            f"{row['weight_decay']:<12.4g} {row['epsilon']:.3g}"
        )
