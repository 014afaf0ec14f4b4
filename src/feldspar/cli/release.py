"""``feldspar release``: a run as a folder that ``transformers`` loads, with card and manifest."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from feldspar.core.manifest import Manifest
    from feldspar.release.card import ReleaseFacts
    from feldspar.train.load import LoadedRun


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def release(
        path: Annotated[Path, typer.Argument(help="Run folder, or with --verify a release.")],
        to: Annotated[
            Path | None, typer.Option("--to", help="Release folder; default RUN/release.")
        ] = None,
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="Replace a release that is there.")
        ] = False,
        verify: Annotated[
            bool, typer.Option("--verify", help="Compare a release with its manifest; exit 1.")
        ] = False,
    ) -> int:
        """Release a run. Example: feldspar release runs/quickstart --to releases/quickstart"""
        if verify:
            from feldspar.release.folder import verify_release

            problems = verify_release(path)
            typer.echo("\n".join(problems) if problems else f"{path} is whole")
            return 1 if problems else 0
        typer.echo(str(release_run(path, to or path / "release", overwrite)))
        return 0


def release_run(
    run: Path, to: Path, overwrite: bool, held_out: dict[str, float] | None = None
) -> Path:
    """Export a run with its card and manifest; returns the folder."""
    from feldspar.core.artifact import require_writable
    from feldspar.core.files import new_folder
    from feldspar.core.json_files import write_json
    from feldspar.core.progress import say
    from feldspar.runtime.run_folder import ADAPTATION_NAME, require_run

    require_run(run)
    require_writable(to, "release", overwrite)
    from feldspar.huggingface.export_folder import export_model
    from feldspar.release.folder import finish_release
    from feldspar.train.adaptation import ADAPTATION_KEY
    from feldspar.train.load import load_run

    loaded = load_run(run)
    if loaded.unfinished:
        say(f"warning: the run is unfinished: {loaded.unfinished}")
    with new_folder(to, overwrite) as folder:
        exported = folder / "model"
        export_model(
            loaded.decoder.state_dict(),
            loaded.recipe.model,
            loaded.forward,
            loaded.tokenizer_folder,
            exported,
            masks=loaded.masks,
            scaling=loaded.decoder.position_scaling,
            soft_prompt=loaded.soft_prompt,
        )
        for item in exported.iterdir():
            shutil.move(item, folder / item.name)
        exported.rmdir()
        if (adaptation := loaded.checkpoint.state.get(ADAPTATION_KEY)) is not None:
            write_json(folder / ADAPTATION_NAME, adaptation, indent=1)
        configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        facts = release_facts(loaded, configuration["architectures"][0], held_out or {})
        finish_release(folder, facts, f"feldspar release {run}")
    return to


def trained_documents(loaded: "LoadedRun") -> "Manifest | None":
    """Return the manifest of the documents that a run was trained on.

    None where the recipe names none, and where they or the shards are gone, damaged or changed
    since, which is said.
    """
    from feldspar.core.errors import FeldsparError
    from feldspar.core.manifest import read_manifest
    from feldspar.core.progress import say

    corpus, shards = loaded.recipe.corpus, loaded.recipe.shards
    if corpus is None or shards is None:
        return None
    try:
        encoded = read_manifest(shards.path, "shards")
        manifest = read_manifest(corpus.path, "documents")
        same = encoded.digest == loaded.checkpoint.state["shards"]
        if same and manifest.digest == encoded.parents.get("documents"):
            return manifest
        reason = f"{corpus.path} and {shards.path} are not what the run was trained on"
    except FeldsparError as error:
        reason = error.what
    say(f"warning: {reason}: the card leaves out documents and their licences")
    return None


def release_facts(
    loaded: "LoadedRun", architecture: str, held_out: dict[str, float]
) -> "ReleaseFacts":
    """What the run and its data say for the card."""
    from feldspar.model.rows import model_shapes
    from feldspar.release.card import ReleaseFacts, licence_text

    recipe = loaded.recipe
    licences: dict[str, str] = {}
    documents: dict[str, int] = {}
    manifests = {"recipe": loaded.loaded.digest, "shards": loaded.checkpoint.state["shards"]}
    manifest = trained_documents(loaded)
    if manifest is not None and recipe.corpus is not None:
        manifests["documents"] = manifest.digest
        for name, counts in manifest.counts["by_source"].items():
            documents[name] = counts["documents"]
            declared = recipe.corpus.sources[name].licence
            licences[name] = declared or licence_text(counts["licences"])
    return ReleaseFacts(
        name=recipe.name,
        description=recipe.description,
        architecture=architecture,
        parameters=model_shapes(recipe.model, recipe.soft_prompt_length).parameters,
        context_length=recipe.model.max_sequence_length,
        tokens=loaded.checkpoint.position,
        planned_tokens=loaded.planned_tokens,
        parametrization=recipe.parametrization.type,
        licences=licences,
        documents=documents,
        held_out=held_out,
        manifests=manifests,
    )
