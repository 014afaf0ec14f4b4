"""``feldspar reproduce``: a paper's experiment run here, its claims beside ours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from feldspar.papers.kit.cost import RunCost
    from feldspar.papers.kit.experiment import Again
    from feldspar.papers.kit.paper import Paper, Scale


Out = Annotated[
    Path | None, typer.Option("--out", help="Folder; default runs/reproduce/PAPER-SCALE.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Runs side by side; default: cores, or 1 GPU."),
]
Judge = Annotated[
    Path | None,
    typer.Option(
        "--judge",
        metavar="RECORD",
        help="Judge a recorded claims.json again by its own figures; train nothing.",
    ),
]
Stages = Annotated[
    str,
    typer.Option(
        "--stages",
        metavar="NAMES",
        help="Run these stages only, as a,b; other figures come from --keep.",
    ),
]
Keep = Annotated[
    Path | None,
    typer.Option("--keep", metavar="RECORD", help="The claims.json for --stages."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def reproduce(
        paper: Annotated[
            str,
            typer.Argument(
                help="cerebras-gpt, btlm, supar, slimpajama-dc, gns, crystal, "
                "alibi-interpolation, mediswift, bilingual, revbifpn, granularity, composition."
            ),
        ],
        scale: Annotated[
            Literal["small", "open", "paper"],
            typer.Option(
                "--scale",
                help="small: about an hour on two cores; open: an open model, an hour "
                "(bilingual); paper: its own runs.",
            ),
        ] = "small",
        quick: Annotated[
            bool, typer.Option("--quick", help="Fewer and shorter runs of the small scale.")
        ] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print every run and its cost; train nothing.")
        ] = False,
        out: Out = None,
        workers: Workers = None,
        judge: Judge = None,
        stages: Stages = "",
        keep: Keep = None,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Run a paper's experiment and judge its claims.

        The same command again continues an experiment that was stopped.
        Without a GPU, --scale paper prints what it would cost. --quick prints figures and gives a
        verdict only on what is counted. --judge RECORD writes the record, its .md and its .svg
        anew. The small scale builds the documents and shards that it lacks; pinned archives come
        from the package index once.
        Example: feldspar reproduce supar --quick
        """
        from feldspar.core.errors import UserError
        from feldspar.papers.catalogue import paper_named
        from feldspar.papers.kit.paper import Scale
        from feldspar.papers.kit.report import judge_again

        chosen = paper_named(paper)
        if judge is not None:
            if quick or dry_run or out or workers:
                raise UserError(
                    "--judge trains nothing and writes beside its record",
                    do="leave out --quick, --dry-run, --out and --workers",
                )
            show_record(judge_again(chosen, judge), json)
            return
        if quick and scale != "small":
            raise UserError(
                f"--quick shortens --scale small, not --scale {scale}",
                do="leave out --quick or --scale",
            )
        size = Scale.QUICK if quick else Scale(scale)
        chosen.data_of(size)
        if dry_run or (size is Scale.PAPER and not has_gpu()):
            show_costs(chosen, size, json, dry_run)
            return
        again = stages_again(chosen, size, stages, keep)
        show_outcome(chosen, size, out, workers, json, again)


def stages_again(paper: "Paper", scale: "Scale", stages: str, keep: Path | None) -> "Again | None":
    """Return the stages to run again beside a record; None where all of them run.

    Raises UserError for one option without the other, and for a record of another scale.
    """
    from feldspar.core.errors import UserError
    from feldspar.papers.kit.experiment import Again
    from feldspar.papers.kit.report import read_record

    if not stages and keep is None:
        return None
    if not stages or keep is None:
        raise UserError("--stages and --keep belong together", do="give both, or neither")
    record = read_record(paper, keep)
    if record["scale"] != scale.value:
        raise UserError(
            f"{keep} records the scale {record['scale']}, not {scale.value}",
            do="give a record of the same scale",
        )
    return Again(tuple(stages.split(",")), record)


def has_gpu() -> bool:
    """Tell whether runs of a paper's size have anything to run on."""
    import torch

    return torch.cuda.is_available()


def show_outcome(
    paper: "Paper",
    scale: "Scale",
    out: Path | None,
    workers: int | None,
    json: bool,
    again: "Again | None",
) -> None:
    """Run what is missing, write the report, print the verdicts."""
    from feldspar.core.execution import available_cores
    from feldspar.papers.kit.experiment import run_experiment
    from feldspar.papers.kit.paper import Scale
    from feldspar.papers.kit.report import write_report

    folder = out or Path("runs") / "reproduce" / f"{paper.name}-{scale.value}"
    side_by_side = workers or (1 if scale is Scale.PAPER else available_cores())
    outcome = run_experiment(paper, scale, folder, side_by_side, again)
    show_record(write_report(outcome, folder), json)
    if not json:
        typer.echo(str(folder / "report.html"))


def show_record(record: dict[str, Any], json: bool) -> None:
    """Print a record as JSON, or its claims."""
    from feldspar.cli.console import print_json

    if json:
        print_json(record)
    else:
        print_claims(record)


def print_claims(record: dict[str, Any]) -> None:
    """Print the verdict, statement and both figures of each claim."""
    for claim in record["claims"]:
        typer.echo(f"{claim['verdict']:16} {claim['name']}: {claim['statement']}")
        typer.echo(f"{'':16} paper: {claim['paper']}")
        typer.echo(f"{'':16} here:  {claim['ours']}")
        if claim["verdict"] in ("not borne out", "needs scale"):
            typer.echo(f"{'':16} {claim['reason']}")
    for note in record["notes"]:
        typer.echo(note)
    if record["scale"] == "quick":
        from feldspar.papers.kit.claims import QUICK_REASON

        typer.echo(QUICK_REASON)
    verdicts = ", ".join(f"{count} {name}" for name, count in record["verdicts"].items())
    typer.echo(f"{verdicts}; {record['runs']} runs in {record['wall_seconds'] / 60:.1f} minutes")


def show_costs(paper: "Paper", scale: "Scale", json: bool, dry_run: bool) -> None:
    """Every run with its cost, and the sum."""
    from feldspar.cli.console import print_json
    from feldspar.core.execution import available_cores
    from feldspar.papers.kit.experiment import planned_costs
    from feldspar.papers.kit.paper import Scale

    stages = planned_costs(paper, scale)
    workers = 1 if scale is Scale.PAPER else available_cores()
    total = totals(stages, scale, workers)
    if json:
        runs = {
            name: [vars(cost) | {"minutes": minutes(cost, scale)} for cost in costs]
            for name, costs in stages.items()
        }
        print_json({"paper": paper.name, "scale": scale.value, "stages": runs, "total": total})
        return
    for name, costs in stages.items():
        typer.echo(f"{name}: {len(costs)} runs")
        for cost in costs:
            typer.echo(
                f"  {cost.name}: {cost.parameters:,} parameters, "
                f"{amount(cost.tokens, cost.images)}, {cost.steps:,} steps, "
                f"{cost.flops:.3g} FLOPs, {duration(minutes(cost, scale))}"
            )
    device = "one H100 at 40 % of its peak" if scale is Scale.PAPER else f"{workers} cores"
    typer.echo(
        f"{total['runs']} runs, {amount(total['tokens'], total['images'])}, "
        f"{total['flops']:.3g} FLOPs by {total['convention']}: about "
        f"{duration(total['minutes'])} on {device}"
    )
    if scale is Scale.PAPER and not dry_run:
        typer.echo("no CUDA device: nothing was trained")
    else:
        typer.echo("dry run: nothing was trained")


def amount(tokens: int, images: int) -> str:
    """The tokens or images of runs, in words."""
    return f"{images:,} images" if images else f"{tokens:,} tokens"


def minutes(cost: "RunCost", scale: "Scale") -> float:
    """Of one run: on a GPU at the paper's scale, on one core otherwise."""
    from feldspar.papers.kit.paper import Scale

    return cost.accelerator_hours * 60 if scale is Scale.PAPER else cost.core_seconds / 60


def totals(stages: "dict[str, list[RunCost]]", scale: "Scale", workers: int) -> dict[str, Any]:
    """The sums over all runs."""
    costs = [cost for stage in stages.values() for cost in stage]
    return {
        "runs": len(costs),
        "tokens": sum(cost.tokens for cost in costs),
        "images": sum(cost.images for cost in costs),
        "flops": sum(cost.flops for cost in costs),
        "convention": costs[0].convention,
        "workers": workers,
        "minutes": sum(minutes(cost, scale) for cost in costs) / workers,
    }


def duration(amount_minutes: float) -> str:
    """Minutes, or hours where there are many."""
    if amount_minutes < 600:
        return (
            f"{amount_minutes:.2g} minutes"
            if amount_minutes < 10
            else f"{amount_minutes:.0f} minutes"
        )
    return f"{amount_minutes / 60:,.0f} hours"
