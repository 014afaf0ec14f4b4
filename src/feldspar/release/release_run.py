"""Release a run: export its model, and write the card and the manifest beside it."""

import shutil
from pathlib import Path

from feldspar.core.artifact import require_writable
from feldspar.core.errors import FeldsparError
from feldspar.core.files import new_folder
from feldspar.core.json_files import read_json, write_json
from feldspar.core.manifest import Manifest, read_manifest
from feldspar.core.progress import say
from feldspar.model.rows import model_shapes
from feldspar.release.card import KIND, ReleaseFacts, finish_release, licence_text
from feldspar.release.export_run import export_loaded
from feldspar.runtime.run_folder import ADAPTATION_NAME
from feldspar.train.adaptation import ADAPTATION_KEY
from feldspar.train.load import LoadedRun, load_run


def release_run(
    run: Path, to: Path, overwrite: bool = False, held_out: dict[str, float] | None = None
) -> Path:
    """Export the run in ``run`` into the folder ``to`` with its card and manifest; return ``to``.

    ``held_out`` maps each source to the bits per byte that the card reports. Raises UserError where
    ``to`` exists already unless ``overwrite``, and as ``load_run``.
    """
    require_writable(to, KIND, overwrite)
    loaded = load_run(run)
    if loaded.unfinished:
        say(f"warning: the run is unfinished: {loaded.unfinished}")
    with new_folder(to, overwrite) as folder:
        exported = folder / "model"
        export_loaded(loaded, exported)
        for item in exported.iterdir():
            shutil.move(item, folder / item.name)
        exported.rmdir()
        if (adaptation := loaded.checkpoint.state.get(ADAPTATION_KEY)) is not None:
            write_json(folder / ADAPTATION_NAME, adaptation, indent=1)
        configuration = read_json(folder / "config.json")
        facts = release_facts(loaded, configuration["architectures"][0], held_out or {})
        finish_release(folder, facts, f"feldspar release {run}")
    return to


def trained_documents(loaded: LoadedRun) -> Manifest | None:
    """Return the manifest of the documents that a run was trained on.

    Return None where the recipe names no documents. Return None with a warning where the documents
    or the shards are missing, damaged or changed since the training.
    """
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


def release_facts(loaded: LoadedRun, architecture: str, held_out: dict[str, float]) -> ReleaseFacts:
    """Collect the facts of the card from the run and its data."""
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
