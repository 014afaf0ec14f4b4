"""Release a run: model, records, data order, checkpoints, card and manifest in one folder."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from feldspar import __version__
from feldspar.core.artifact import require_writable
from feldspar.core.errors import UserError
from feldspar.core.files import copy_folder, new_folder, sha256_of_file, write_atomically
from feldspar.core.json_files import write_json
from feldspar.core.manifest import FileRecord, Manifest, write_manifest
from feldspar.core.progress import say
from feldspar.core.records import Mark, read_steps, restore_steps
from feldspar.recipe.recorded import (
    ADAPTATION_NAME,
    BAD_BATCHES_NAME,
    EVENTS_NAME,
    METRICS_NAME,
    RECIPE_NAME,
    RELEASE_KIND,
    RELEASE_RECORD_NAME,
)
from feldspar.recipe.write import recipe_text
from feldspar.release import record
from feldspar.release.card import CARD_NAME, model_card
from feldspar.release.corpus_record import corpus_record
from feldspar.release.evaluations import read_evaluations
from feldspar.release.export_run import export_loaded
from feldspar.release.kept_checkpoints import (
    Kept,
    checkpoints_to_release,
    describe,
    place_checkpoints,
    size_of,
)
from feldspar.release.openness import openness
from feldspar.release.released_order import FOLDER_NAME, ORDER_NAME
from feldspar.release.run_order import OrderUnknown, write_order
from feldspar.release.stored_tensors import stored_entries
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.train.adaptation import ADAPTATION_KEY
from feldspar.train.load import LoadedRun, load_run
from feldspar.train.run_tokenizer import TOKENIZER_FOLDER

CORPUS_NAME = "corpus.json"
RECORDS = (METRICS_NAME, EVENTS_NAME, BAD_BATCHES_NAME)
"""Records of a run that a release copies, where the run has them."""


def release_run(
    run: Path,
    to: Path,
    overwrite: bool = False,
    held_out: dict[str, Any] | None = None,
    *,
    checkpoints: Kept = "all",
    licence: str | None = None,
    authors: Sequence[str] = (),
    evaluations: Sequence[Path] = (),
) -> Path:
    """Release the run in ``run`` in the folder ``to``; return ``to``.

    ``held_out`` are figures that ``feldspar evaluate`` measured, ``evaluations`` files with what
    ``feldspar evaluate --json`` printed. ``checkpoints`` says what of the run's checkpoints is
    released: none, weights, or all. ``authors`` are names. Raises UserError where ``to`` exists
    already unless ``overwrite``, and as ``load_run``; RunError for a damaged checkpoint.
    """
    if checkpoints not in get_args(Kept):
        raise UserError(f"--checkpoints {checkpoints} is not known", allowed=get_args(Kept))
    require_writable(to, RELEASE_KIND, overwrite)
    loaded = load_run(run)
    if loaded.unfinished:
        say(f"warning: the run is unfinished: {loaded.unfinished}")
    chosen = checkpoints_to_release(run, loaded.checkpoint.position, checkpoints)
    figures = read_evaluations(evaluations, held_out, chosen)
    with new_folder(to, overwrite) as folder:
        _write_model(loaded, folder)
        _copy_records(loaded, folder)
        written = _write_record(loaded, folder, chosen, checkpoints, licence, authors, figures)
        files = record.files_of(folder)
        write_json(folder / RELEASE_RECORD_NAME, written | {"files": files})
        _finish(loaded, folder, written, files, f"feldspar release {run}")
    return to


def _write_model(loaded: LoadedRun, folder: Path) -> None:
    exported = folder / "model"
    export_loaded(loaded, exported)
    for item in exported.iterdir():
        shutil.move(item, folder / item.name)
    exported.rmdir()
    (folder / "manifest.json").unlink()  # that of the exported folder; the release has its own


def _copy_records(loaded: LoadedRun, folder: Path) -> None:
    """Copy the run's recipe, tokenizer and records, up to the released checkpoint."""
    # The files that its values came from lie on this machine.
    write_atomically(folder / RECIPE_NAME, recipe_text(replace(loaded.loaded, origins={})))
    copy_folder(loaded.tokenizer_folder, folder / TOKENIZER_FOLDER)
    state = loaded.checkpoint.state
    if (adaptation := state.get(ADAPTATION_KEY)) is not None:
        write_json(folder / ADAPTATION_NAME, adaptation, indent=1)
    for name in RECORDS:
        if (loaded.path / name).is_file():
            shutil.copyfile(loaded.path / name, folder / name)
    metrics, mark = folder / METRICS_NAME, state.get("records")
    expected = None if mark is None else Mark(**mark)
    if not metrics.is_file():
        say(f"warning: {loaded.path / METRICS_NAME} is missing: the release has no metrics")
        return
    position = loaded.checkpoint.position
    if damage := restore_steps(metrics, state["step"], position, "tokens", expected):
        say(f"warning: {loaded.path / METRICS_NAME} is damaged: {damage}")


def _write_record(
    loaded: LoadedRun,
    folder: Path,
    chosen: list[Checkpoint],
    kept: Kept,
    licence: str | None,
    authors: Sequence[str],
    figures: list[dict[str, Any]],
) -> dict[str, Any]:
    """Write checkpoints, data order, corpus and card; return the record of the release."""
    left_out = ["the checkpoints were left out on request"] if kept == "none" else []
    if kept != "none" and chosen:
        size = size_of(chosen, kept)
        say(f"{len(chosen)} checkpoints ({kept}) of {size / 1e6:,.1f} MB are linked or copied")
    place_checkpoints(chosen, folder, kept)
    places = sorted((folder / "checkpoints").glob("*")) if kept != "none" else []
    described = [
        describe(place) | {"entries": stored_entries(place.glob("model*.safetensors"))}
        for place in places
    ]
    order, order_missing = None, []
    try:
        order = write_order(loaded, [each.position for each in chosen], folder / FOLDER_NAME)
    except OrderUnknown as error:
        order_missing.append(str(error))
    steps = read_steps(folder / METRICS_NAME)
    described = record.with_rates_and_chunks(described, steps, order)
    corpus, corpus_missing = corpus_record(loaded.recipe, loaded.checkpoint.state["shards"], order)
    for reason in corpus_missing:
        say(f"warning: {reason}: the release leaves out documents and their licences")
    write_json(folder / CORPUS_NAME, corpus)
    training = record.training(loaded, folder, steps)
    metrics = record.metrics(steps)
    written: dict[str, Any] = {
        "schema_version": record.SCHEMA_VERSION,
        "identity": record.identity(loaded, folder, licence, authors, corpus),
        "model": record.model(loaded, folder),
        "training": training,
        "data": {"file": CORPUS_NAME, "sources": _summary_of(corpus), "missing": corpus_missing},
        "data_order": None if order is None else f"{FOLDER_NAME}/{ORDER_NAME}",
        "checkpoints": described,
        "metrics": metrics,
        "evaluations": figures,
        "events": record.events(folder),
        "reproduction": record.reproduction(loaded, [each["tokens"] for each in described]),
        "openness": openness(
            checkpoints=described,
            left_out=left_out,
            order_missing=[*order_missing, *corpus_missing],
            corpus=corpus,
            software=training["software"],
            steps=training["steps"],
            recorded_steps=metrics["records"],
            has_events=(folder / EVENTS_NAME).is_file(),
        ),
    }
    write_atomically(folder / CARD_NAME, model_card(written))
    return written


def _summary_of(corpus: dict[str, Any]) -> dict[str, Any]:
    """Return of each source what the card shows."""
    names = ("licence", "documents", "removed", "tokens", "phases")
    return {
        name: {key: source[key] for key in names if key in source}
        for name, source in corpus["sources"].items()
    }


def _finish(
    loaded: LoadedRun,
    folder: Path,
    written: dict[str, Any],
    files: dict[str, dict[str, Any]],
    command: str,
) -> None:
    """Write the manifest, with the digests that ``release.json`` lists already."""
    parents = {"recipe": loaded.loaded.digest, "shards": loaded.checkpoint.state["shards"]}
    listed = {name: FileRecord(**each) for name, each in files.items()}
    own = folder / RELEASE_RECORD_NAME
    counts = {
        "parameters": written["model"]["parameters"],
        "tokens": loaded.checkpoint.position,
        "planned_tokens": loaded.planned_tokens,
    }
    manifest = Manifest(
        kind=RELEASE_KIND,
        configuration=parents["recipe"],
        version=__version__,
        command=command,
        parents=parents,
        counts=counts,
        files=listed | {own.name: FileRecord(own.stat().st_size, sha256_of_file(own))},
    )
    write_manifest(folder, manifest)
