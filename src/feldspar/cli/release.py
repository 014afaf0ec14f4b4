"""``feldspar release``: a run as a folder that anyone can load, verify, continue and reproduce."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from feldspar.cli.generate import CheckpointName
from feldspar.cli.next_steps import quoted, tell_next

To = Annotated[Path | None, typer.Option("--out", "--to", help="Folder; default RUN/release.")]
Kept = Annotated[
    Literal["none", "weights", "all"],
    typer.Option("--checkpoints", help="What is released of the run's: none, weights, or all."),
]
Licence = Annotated[
    str | None, typer.Option("--licence", help="Licence of the weights, such as apache-2.0.")
]
Authors = Annotated[
    str | None, typer.Option("--authors", help="Names of the authors, separated by commas.")
]
Evaluations = Annotated[
    list[Path] | None,
    typer.Option("--evaluation", help="A file of `evaluate --json`; may be repeated."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a release that is there.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="Verify every byte of a release; exit 1 where one differs.")
]
Shards = Annotated[
    Path | None,
    typer.Option("--shards", help="With --verify: shards to recompute the data order from."),
]
Unpack = Annotated[
    Path | None,
    typer.Option("--unpack", help="Write a run folder that continues a released checkpoint."),
]
Upload = Annotated[
    str | None,
    typer.Option("--upload", help="Upload the release to a hub as OWNER/NAME, private if new."),
]
Public = Annotated[
    bool, typer.Option("--public", help="With --upload: everyone may see a new repository.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def release(
        path: Annotated[
            Path, typer.Argument(help="Run folder; for --verify and --unpack a release too.")
        ],
        to: To = None,
        checkpoints: Kept = "all",
        licence: Licence = None,
        authors: Authors = None,
        evaluation: Evaluations = None,
        overwrite: Overwrite = False,
        verify: Verify = False,
        shards: Shards = None,
        unpack: Unpack = None,
        checkpoint: CheckpointName = "last",
        upload: Upload = None,
        public: Public = False,
    ) -> int:
        """Release a run whole: model, card, recipe, metrics, data order, checkpoints, manifest.

        Example: feldspar release runs/quickstart --out releases/quickstart
        """
        import feldspar
        from feldspar.core.errors import UserError
        from feldspar.recipe.recorded import is_released

        if shards is not None and not verify:
            raise UserError("--shards goes with --verify")
        if checkpoint != "last" and unpack is None:
            raise UserError("--checkpoint goes with --unpack")
        if public and upload is None:
            raise UserError("--public goes with --upload")
        if verify:
            return show_verified(released(path), shards)
        if unpack is not None:
            run = feldspar.unpack_release(released(path), unpack, checkpoint=checkpoint)
            typer.echo(str(run))
            run = quoted(run)
            tell_next((f"feldspar train {run} --out {run}", "continue it, bit for bit"))
            return 0
        anew = overwrite or any((to, licence, authors, evaluation, checkpoints != "all"))
        if upload is not None and not anew and is_released(released(path)):
            show_uploaded(released(path), upload, public)
            return 0
        folder = feldspar.release(
            path,
            to,
            checkpoints=checkpoints,
            licence=licence,
            authors=names_of(authors or ""),
            evaluations=evaluation or [],
            overwrite=overwrite,
        )
        show_openness(folder)
        typer.echo(str(folder))
        if upload is not None:
            show_uploaded(folder, upload, public)
        else:
            tell_next((f"feldspar release {quoted(folder)} --verify", "read every byte again"))
        return 0


def names_of(authors: str) -> list[str]:
    """Return the names in the option ``--authors``."""
    return [name.strip() for name in authors.split(",") if name.strip()]


def released(path: Path) -> Path:
    """Return the release that a path stands for: itself, or the default place in a run."""
    from feldspar.recipe.recorded import is_run

    return path / "release" if is_run(path) and (path / "release").is_dir() else path


def show_verified(folder: Path, shards: Path | None) -> int:
    """Verify a release, print what was found, and return the exit code."""
    from feldspar.core.errors import EXIT_CHECK_FAILED
    from feldspar.release.verify import verify_release

    found = verify_release(folder, shards)
    if found.problems:
        typer.echo("\n".join(found.problems))
        return EXIT_CHECK_FAILED
    typer.echo(f"{folder} is whole: {found.files:,} files, {found.bytes / 1e6:,.1f} MB")
    typer.echo(f"data order: {found.order}")
    return 0


def show_uploaded(folder: Path, name: str, public: bool) -> None:
    """Upload a release and print its address."""
    import feldspar
    from feldspar.core.progress import say

    say(f"uploading {folder}")
    typer.echo(feldspar.upload_release(folder, name, public=public))
    own = quoted(name.split("/")[-1])
    tell_next((f"hf download {quoted(name)} --local-dir {own}", "what others will get"))


def show_openness(folder: Path) -> None:
    """Print what is complete in a release, and what is missing."""
    from feldspar.core.json_files import read_json

    openness = read_json(folder / "release.json")["openness"]
    typer.echo(openness["level"])
    for name, pillar in openness["pillars"].items():
        typer.echo(f"  {name:12} {'complete' if pillar['complete'] else 'incomplete'}")
        for reason in pillar["missing"]:
            typer.echo(f"  {'':12} {reason}")
