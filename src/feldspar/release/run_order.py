"""Write the order of the data that a run has read: digests of chunks, and where each sequence lies.

Goes in: a run and its shards. Comes out: ``data_order/order.json`` and an index for each phase.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.core.errors import FeldsparError
from feldspar.core.json_files import write_json
from feldspar.core.progress import progress
from feldspar.core.records import read_records
from feldspar.plan.summary import plan_recipe
from feldspar.plan.timeline import PhasePlan, Timeline
from feldspar.recipe.recorded import EVENTS_NAME
from feldspar.recipe.root import Recipe
from feldspar.release.released_order import ORDER_NAME
from feldspar.tokens.sequences.data_order import (
    FORMAT_VERSION,
    Chunk,
    chunk_digest,
    chunk_records,
    index_of,
    phase_record,
)
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.train.data import TrainingData, open_shards, open_training_data, source_tokens
from feldspar.train.examples import open_examples
from feldspar.train.load import LoadedRun

CHUNK_TOKENS = 2**26
"""The most tokens of a chunk, so that chunks can be recomputed side by side."""


class OrderUnknown(Exception):  # noqa: N818
    """The order of the data cannot be stated; the text says why."""


def write_order(run: LoadedRun, positions: list[int], folder: Path) -> dict[str, Any]:
    """Write the data order of ``run`` up to its checkpoint into ``folder``; return the record.

    A chunk ends at each of ``positions`` (those of the checkpoints). Raises OrderUnknown where the
    data are not at hand, or the recipe changed while its phase was read.
    """
    recipe = run.recipe
    try:
        shards = open_shards(recipe)
        if shards.digest != run.checkpoint.state["shards"]:
            raise OrderUnknown(f"{shards.path} holds other shards than the run was trained on")
        examples = open_examples(recipe, shards)
        plan = plan_recipe(recipe, source_tokens(shards, recipe, examples))
        data = open_training_data(recipe, plan.timeline, shards, examples)
    except FeldsparError as error:
        raise OrderUnknown(error.what) from error
    _require_same_order(run, plan.timeline)
    chunks = _chunks(recipe, data, plan.timeline, run.checkpoint.position, positions)
    record = {
        "format_version": FORMAT_VERSION,
        "rule": "docs/methods/data-order.md of feldspar",
        "seed": recipe.seed,
        "tokens": run.checkpoint.position,
        "shards": _shards(shards),
        "phases": [
            _phase(data, phase, read)
            for phase, read in zip(plan.timeline.phases, _read(plan.timeline, run), strict=True)
        ],
        "chunks": chunk_records(chunks),
        "index": _write_index(data, _read(plan.timeline, run), folder),
    }
    write_json(folder / ORDER_NAME, record)
    return record


def _require_same_order(run: LoadedRun, timeline: Timeline) -> None:
    """Raise OrderUnknown if a phase's length changed after its first sequences were read."""
    for event in read_records(run.path / EVENTS_NAME):
        for change in event.get("changes") or ():
            key = str(change).split(":")[0].split(".")
            if key[0] != "phases" or len(key) < 3 or key[2] != "length":
                continue
            phase = timeline.phases[int(key[1])]
            if event.get("tokens", 0) > phase.start_position:
                raise OrderUnknown(
                    f"the recipe changed at step {event.get('step')} ({change}), after phase "
                    f"{phase.name} had begun: its windows up to there were in another order"
                )


def _read(timeline: Timeline, run: LoadedRun) -> list[int]:
    """Return the number of sequences that the run has read of each phase."""
    position = run.checkpoint.position
    return [
        max(0, min(phase.end_position, position) - phase.start_position) // phase.context_length
        for phase in timeline.phases
    ]


def _chunks(
    recipe: Recipe, data: TrainingData, timeline: Timeline, end: int, positions: list[int]
) -> list[Chunk]:
    spans = [
        (phase, start, stop)
        for phase in timeline.phases
        for start, stop in _borders(phase, end, positions)
    ]
    found = []
    total = sum((stop - start) // phase.context_length for phase, start, stop in spans)
    with progress("digests of the data order", total, "sequences") as advance:
        for phase, start, stop in spans:
            first = (start - phase.start_position) // phase.context_length
            sequences = (stop - start) // phase.context_length
            digest = chunk_digest(
                lambda a, b, index=phase.index: data.reader.read(index, a, b), first, sequences
            )
            found.append(Chunk(phase.index, first, sequences, stop, digest))
            advance(sequences)
    return found


def _borders(phase: PhasePlan, end: int, positions: list[int]) -> list[tuple[int, int]]:
    """Return first and last position of each chunk of a phase, up to the position ``end``."""
    stop = min(phase.end_position, end)
    step = max(CHUNK_TOKENS // phase.context_length, 1) * phase.context_length
    marks = {phase.start_position, stop, *range(phase.start_position, stop, step)}
    marks |= {place for place in positions if phase.start_position < place < stop}
    ordered = sorted(mark for mark in marks if mark <= stop)
    return list(pairwise(ordered))


def _shards(shards: ShardSet) -> dict[str, Any]:
    manifest = shards.manifest
    return {
        "digest": shards.digest,
        "tokenizer_digest": shards.tokenizer_digest,
        "dtype": manifest.counts["dtype"],
        "vocab_size": shards.vocab_size,
        "end_of_document_id": shards.end_of_document_id,
        "begin_of_sequence_id": shards.begin_of_sequence_id,
        "files": {
            name: {"bytes": record.bytes, "sha256": record.sha256}
            for name, record in sorted(manifest.files.items())
        },
    }


def _phase(data: TrainingData, phase: PhasePlan, read: int) -> dict[str, Any]:
    common = {
        "start_position": phase.start_position,
        "sequences_read": read,
    }
    if phase.index in data.reader.examples:
        return {
            "rule": "examples",
            "name": phase.name,
            "context_length": phase.context_length,
            "sequences": phase.sequences,
            "examples_digest": data.reader.examples[phase.index].digest,
        } | common
    epochs = data.mixtures[phase.index].epochs
    known = {name: passes for name, passes in epochs.items() if passes is not None}
    return phase_record(data.reader.shards.phases[_place(data, phase.index)], known) | common


def _place(data: TrainingData, index: int) -> int:
    """Return the number of a phase among those that read shards."""
    return index - sum(other < index for other in data.reader.examples)


def _write_index(data: TrainingData, read: list[int], folder: Path) -> dict[str, str]:
    """Write the index of each phase that read shards; return the files' names by phase."""
    names = {}
    folder.mkdir(parents=True, exist_ok=True)
    for index, sequences in enumerate(read):
        if index in data.reader.examples or not sequences:
            continue
        name = f"phase-{index}.npy"
        np.save(folder / name, index_of(data.reader.shards, _place(data, index), sequences))
        names[str(index)] = name
    return names
