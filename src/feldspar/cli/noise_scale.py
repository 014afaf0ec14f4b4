"""``feldspar noise-scale``: choose batch sizes from the noise scale that a run logged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from feldspar.plan.batch_replay import Replayed

Run = Annotated[Path, typer.Argument(help="Run folder that measured its noise scale.")]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(help="Choose batch sizes by the gradient noise scale of a run.")
    app.add_typer(group, name="noise-scale")
    group.command()(replay)
    group.command()(schedule)
    group.command()(branch)


def replay(
    run: Run,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides of the rules, e.g. phases.0.batch.gain=1")
    ] = None,
    json: Json = False,
) -> None:
    """Repeat a run's decisions on its batch size from its log.

    Exit code 1 where they differ. With overrides, print the decisions that other rules would have
    made of the same noise scale.
    Example: feldspar noise-scale replay runs/steered phases.0.batch.gain=1
    """
    from feldspar.cli.console import print_json
    from feldspar.core.errors import EXIT_CHECK_FAILED
    from feldspar.train.batch_log import replay_run

    replayed = replay_run(run, overrides or ())
    differing = [item for item in replayed.decisions if not item.agrees]
    if json:
        decisions = [_record(item) for item in replayed.decisions]
        print_json({"decisions": decisions, "steps": replayed.steps})
    else:
        for item in replayed.decisions:
            if item.decision.action != "hold" or not item.agrees:
                typer.echo(_line(item))
        for name, steps in replayed.steps.items():
            typer.echo(f"phase {name}: about {steps:,.0f} steps at these batches")
        typer.echo(f"{len(replayed.decisions)} decisions, {len(differing)} differ from the run's")
    if differing and not overrides:
        raise typer.Exit(EXIT_CHECK_FAILED)


def _record(item: "Replayed") -> dict[str, Any]:
    places = {"phase": item.phase, "step": item.step, "tokens": item.tokens}
    batches = {"before": item.decision.before, "recorded": item.recorded, "agrees": item.agrees}
    return places | batches | item.decision.record()


def _line(item: "Replayed") -> str:
    decision = item.decision
    line = (
        f"  {item.phase} step {item.step:,} ({item.tokens:,} tokens): {decision.before} -> "
        f"{decision.after} sequences, {decision.reason}"
    )
    return line if item.agrees or item.recorded is None else f"{line}; the run: {item.recorded}"


def schedule(
    run: Run,
    minimum: Annotated[int, typer.Option("--minimum", help="Smallest batch, in sequences.")],
    maximum: Annotated[int, typer.Option("--maximum", help="Largest batch, in sequences.")],
    quantum: Annotated[
        int | None,
        typer.Option("--quantum", help="Unit of batch sizes; default: the minimum."),
    ] = None,
    gain: Annotated[float, typer.Option("--gain", help="Batch size divided by noise scale.")] = 0.5,
    level_ratio: Annotated[
        float, typer.Option("--level-ratio", help="Ratio of neighbouring batch sizes.")
    ] = 2**0.5,
    phase: Annotated[
        str | None, typer.Option("--phase", help="Its name; default: the first.")
    ] = None,
    json: Json = False,
) -> None:
    """Fit a schedule of batch sizes to a pilot run's noise scale.

    It is printed as an override of the recipe.

    Example: feldspar noise-scale schedule runs/pilot --minimum 8 --maximum 128
    """
    import feldspar
    from feldspar.cli.console import print_json
    from feldspar.cli.tables import print_table

    fitted = feldspar.fit_batch_schedule(
        run,
        minimum,
        maximum,
        quantum=quantum,
        gain=gain,
        level_ratio=level_ratio,
        phase=phase,
    )
    if json:
        print_json(fitted)
        return
    growth, saving = fitted["growth"], fitted["predicted"]
    typer.echo(
        f"  noise scale {growth['coefficient']:.4g} x tokens^{growth['exponent']:.3f} sequences, "
        f"scatter {growth['residual']:.2f} of its logarithm"
    )
    typer.echo("  tokens and steps for the pilot's progress (quadratic model), and of the run:")
    print_table(
        ("batches", "tokens", "steps"),
        [
            *(
                (name, f"{saving[name]['tokens']:,.0f}", f"{saving[name]['steps']:,.0f}")
                for name in ("schedule", "constant", "pilot")
            ),
            ("the run with the schedule", f"{fitted['tokens']:,}", f"{fitted['steps']:,}"),
        ],
        indent=2,
    )
    typer.echo(fitted["override"])


def branch(
    run: Run,
    tokens: Annotated[
        int, typer.Option("--tokens", help="Tokens of each branch; 2 to 5 % of the run.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the branches.")],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", help="last, best, or its number of tokens.")
    ] = "last",
    json: Json = False,
) -> None:
    """Find the largest batch without loss penalty, by branches of a checkpoint.

    The branches train at 1x, 2x and 4x the batch size.

    Example: feldspar noise-scale branch runs/pilot --tokens 2000000 --out runs/branches
    """
    from feldspar.cli.console import print_json
    from feldspar.cli.tables import print_table
    from feldspar.runtime.run_folder import require_run

    require_run(run)
    from feldspar.study.branch_test import branch_test

    found = branch_test(run, tokens, out, checkpoint)
    if json:
        print_json(
            {
                "tokens": found.tokens,
                "noise_scale": found.noise_scale,
                "accepted": found.accepted,
                "gain": found.gain,
                "branches": [
                    {
                        "sequences": item.sequences,
                        "excess": item.excess,
                        "half_width": item.half_width,
                        "passed": item.passed,
                    }
                    for item in found.branches
                ],
            }
        )
        return
    print_table(
        ("sequences", "loss beside the batch before", "+-", "judgement"),
        (
            (
                str(item.sequences),
                f"{item.excess:+.4f}",
                f"{item.half_width:.4f}",
                "passed" if item.passed else "not passed",
            )
            for item in found.branches
        ),
        left=0,
        indent=2,
    )
    typer.echo(
        f"accepted {found.accepted} sequences at a noise scale of {found.noise_scale:.1f}: "
        f"gain {found.gain:.2f}"
    )
