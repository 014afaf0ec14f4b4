"""``feldspar vision``: networks for images planned, trained and measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feldspar.cli.next_steps import quoted, tell_next

if TYPE_CHECKING:
    from feldspar.recipe.load import LoadedVisionRecipe

TOLD = (
    ("top-1", "validation/top1"),
    ("top-5", "validation/top5"),
    ("box AP", "validation/box_AP"),
    ("mask AP", "validation/mask_AP"),
    ("mean IoU", "validation/mean_iou"),
)
"""Measures that the end of a training tells, by their key."""
RecipeName = Annotated[str, typer.Argument(help="Recipe file, shipped name or run folder.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. choose.size=S1")
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
Run = Annotated[Path, typer.Argument(help="Run folder.")]
Checkpoint = Annotated[str, typer.Option("--checkpoint", help="last, or its number of images.")]
Resolution = Annotated[
    int | None, typer.Option("--resolution", help="Pixels; default: the last phase's.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    vision = typer.Typer(help="Plan, train and measure networks for images (RevBiFPN).")
    app.add_typer(vision, name="vision")

    @vision.command()
    def plan(recipe: RecipeName, overrides: Overrides = None, json: Json = False) -> None:
        """Print what a recipe will cost and do; needs images only to count epochs.

        Example: feldspar vision plan revbifpn/paper choose.size=S6
        """
        from feldspar.recipe.load import load_vision_recipe

        show_plan(load_vision_recipe(recipe, overrides), json)

    @vision.command()
    def train(
        recipe: RecipeName,
        overrides: Overrides = None,
        out: Annotated[
            Path | None, typer.Option("--out", help="Run folder; default runs/NAME.")
        ] = None,
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="Start anew in a folder that holds a run.")
        ] = False,
        dry_run: Annotated[
            bool,
            typer.Option("--dry-run", help="Check the recipe and its images; train nothing."),
        ] = False,
        json: Json = False,
    ) -> None:
        """Train a recipe on images, or continue the run where it stopped.

        Example: feldspar vision train revbifpn/small --out runs/first
        """
        from feldspar.cli.console import print_json
        from feldspar.recipe.load import load_vision_recipe

        loaded = load_vision_recipe(recipe, overrides)
        if dry_run:
            show_plan(loaded, json, with_images=True)
            return
        import feldspar

        result = feldspar.train(loaded, out, overwrite=overwrite)
        folder = result.folder
        if json:
            record = {"run": str(folder), "images": result.position, "steps": result.steps}
            print_json(record | result.metrics)
            return
        measured = "".join(
            f", {name} {result.metrics[key]:.2%}" for name, key in TOLD if key in result.metrics
        )
        typer.echo(f"{folder}: {result.position:,} images in {result.steps:,} steps{measured}")
        images_run = quoted(folder)
        tell_next(
            (f"feldspar vision evaluate {images_run}", "all figures of the validation images"),
            (f"feldspar report {images_run}", "curves of the run, as one page"),
        )

    _add_evaluate(vision)
    _add_export(vision)


def _add_export(vision: typer.Typer) -> None:
    @vision.command()
    def export(
        run: Run,
        to: Annotated[Path, typer.Option("--out", "--to", help="File to write.")],
        file_format: Annotated[
            str, typer.Option("--format", help="onnx, or pt2 (a program of torch.export).")
        ] = "onnx",
        checkpoint: Checkpoint = "last",
        resolution: Resolution = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace it.")] = False,
        json: Json = False,
    ) -> None:
        """Write a trained network as a file for other programs, and check what it returns.

        The file takes normalised images in batches of any number and returns logits.

        Example: feldspar vision export runs/revbifpn-small --out stripes.onnx
        """
        from feldspar.cli.console import print_json
        from feldspar.runtime.run_folder import require_run

        require_run(run)
        from feldspar.vision.export import export_run

        written = export_run(run, to, file_format, checkpoint, resolution, overwrite)
        channels, height, width = written.image_shape
        if json:
            record = {"file": str(to), "images": [channels, height, width]}
            print_json(record | {"outputs": written.outputs, "difference": written.difference})
            return
        typer.echo(
            f"{to}: images of {channels} x {height} x {width}, outputs equal to "
            f"{written.difference:.2g}"
        )


def _add_evaluate(vision: typer.Typer) -> None:
    @vision.command()
    def evaluate(
        run: Run,
        images: Annotated[
            Path | None,
            typer.Option("--images", help="In place of the recipe's images.validation."),
        ] = None,
        annotations: Annotated[
            Path | None,
            typer.Option("--annotations", help="COCO's JSON file of --images with objects."),
        ] = None,
        results: Annotated[
            Path | None,
            typer.Option("--results", help="Write found objects as COCO's results file."),
        ] = None,
        checkpoint: Checkpoint = "last",
        resolution: Resolution = None,
        raw: Annotated[
            bool, typer.Option("--raw", help="The weights themselves, not their average.")
        ] = False,
        json: Json = False,
    ) -> None:
        """Measure a trained run on its validation images, or others.

        A run that classifies gets loss, top-1 and top-5; a detector the twelve numbers of COCO, for
        boxes and masks; a segmenter mean IoU and accuracy of pixels.

        Example: feldspar vision evaluate runs/revbifpn-small --json
        """
        from feldspar.cli.console import print_json
        from feldspar.cli.tables import print_table
        from feldspar.runtime.run_folder import require_run

        require_run(run)
        from feldspar.vision.evaluate import evaluate_run

        measured = evaluate_run(
            *(run, images, checkpoint, resolution),
            averaged=not raw,
            annotations=annotations,
            results=results,
        )
        if json:
            print_json(measured)
            return
        print_table(
            ("figure", "value"),
            (
                (name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
                for name, value in measured.items()
            ),
        )


def show_plan(loaded: "LoadedVisionRecipe", json: bool, with_images: bool = False) -> None:
    """The plan, by the images where they are to be looked at or their number is needed, else by
    what the recipe declares."""
    from feldspar.cli.console import print_json
    from feldspar.vision.plan import lacks_number_of_images, plan_vision_recipe

    with loaded.locating_errors():
        found, recipe = None, loaded.recipe
        wanted = with_images or lacks_number_of_images(recipe)
        if wanted and recipe.images.train.parent.exists():
            from feldspar.vision.data import open_data

            found = len(open_data(recipe).train)
        summary = plan_vision_recipe(recipe, found).summary()
    if json:
        print_json(summary)
        return
    print_plan(summary)
    vision_arguments = loaded.arguments
    tell_next((f"feldspar vision train {vision_arguments}", "train it, or continue its run"))


def print_plan(summary: dict[str, Any]) -> None:
    """The plan for people."""
    from feldspar.core.readable import size_text

    typer.echo(f"{summary['name']}")
    typer.echo(f"  parameters  {summary['parameters']['total']:,}")
    typer.echo(f"  images      {summary['images']:,} in {summary['steps']:,} steps")
    typer.echo(f"  FLOPs       {summary['flops']:.4g} (three passes of two a multiply-add)")
    for phase in summary["phases"]:
        macs, memory = phase["macs"], phase["memory_bytes"]
        epochs = "" if phase["epochs"] is None else f" ({phase['epochs']:.3g} epochs)"
        low, high = phase["learning_rate"]
        typer.echo(
            f"  phase {phase['name']}: {phase['images']:,} images{epochs}, {phase['steps']:,} "
            f"steps of {phase['batch_images']} at {phase['resolution']} pixels, "
            f"learning rate {low:.3g} to {high:.3g}"
        )
        typer.echo(
            f"    multiply-adds an image: {macs['conv+linear']:,} (conv+linear), "
            f"{macs['paper counter']:,} (paper counter)"
        )
        parts = ", ".join(
            f"{name} {size_text(value)}"
            for name, value in memory.items()
            if value and name != "total"
        )
        typer.echo(
            f"    memory of a step in float32: {size_text(memory['total'])}: {parts} "
            f"({phase['activation_memory']})"
        )
    for warning in summary["warnings"]:
        typer.echo(f"  warning: {warning}")
