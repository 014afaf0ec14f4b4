"""Collect what a release states of itself: ``release.json``, from which the card is written.

Everything is read from the run, its data, and the files that are already in the folder.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from feldspar import __version__
from feldspar.core.json_files import json_values, read_json
from feldspar.core.machine import machine
from feldspar.core.manifest import records_of
from feldspar.core.records import read_records, step_seconds
from feldspar.core.requirements import installed_version
from feldspar.core.software import software
from feldspar.model.rows import model_shapes
from feldspar.recipe.load import plain
from feldspar.recipe.recorded import BAD_BATCHES_NAME, EVENTS_NAME, METRICS_NAME
from feldspar.release.corpus_record import licences_of
from feldspar.release.stored_tensors import stored_entries
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.train.load import LoadedRun

SCHEMA_VERSION = 1


def identity(
    run: LoadedRun,
    folder: Path,
    licence: str | None,
    authors: Sequence[str],
    corpus: dict[str, Any],
) -> dict[str, Any]:
    """Return name, authors, date and licences of a release, and what its weights began from."""
    recipe = run.recipe
    return {
        "name": recipe.name,
        "description": recipe.description,
        "authors": list(authors),
        "date": datetime.now(UTC).date().isoformat(),
        "feldspar": __version__,
        "licences": {
            "weights": licence,
            "logs": licence,
            "code": _own_licence(),
            "data": licences_of(corpus),
        },
        "parent": _parent(run, folder),
        "recipe": run.loaded.digest,
        "shards": run.checkpoint.state["shards"],
    }


def _parent(run: LoadedRun, folder: Path) -> dict[str, Any] | None:
    """Return what the run started from, with digests of its weights where the start recorded them;
    older versions did not."""
    if run.recipe.start_from.type == "scratch":
        return None
    known = {"tokens": None, "weights": None}
    for event in read_records(folder / EVENTS_NAME):
        known = event.get("parent", known)
    return plain(run.loaded)["start_from"] | known


def _own_licence() -> str | None:
    try:
        return metadata("feldspar")["License-Expression"]
    except (PackageNotFoundError, KeyError):
        return None


def model(run: LoadedRun, folder: Path) -> dict[str, Any]:
    """Return the model's shape, and the number of entries of the weights that were written."""
    recipe = run.recipe
    configuration = read_json(folder / "config.json")
    tokenizer = TextTokenizer.load(run.tokenizer_folder)
    weights = sorted(path.name for path in folder.glob("model*.safetensors"))
    return {
        "class": configuration["architectures"][0],
        "parameters": model_shapes(recipe.model, recipe.soft_prompt_length).parameters,
        "weights": {
            "files": weights,
            "entries": stored_entries(folder / name for name in weights),
            "dtype": configuration["dtype"],
        },
        "context_length": recipe.model.max_sequence_length,
        "settings": recipe.model.model_dump(mode="json"),
        "parametrization": recipe.parametrization.model_dump(mode="json"),
        "multipliers": asdict(run.forward),
        "tokenizer": {
            "sha256": tokenizer.digest,
            "vocab_size": tokenizer.vocab_size,
            "special_tokens": _special_tokens(folder),
        },
    }


def _special_tokens(folder: Path) -> dict[str, int]:
    added = read_json(folder / "tokenizer.json").get("added_tokens") or []
    return {each["content"]: each["id"] for each in added if each.get("special")}


def training(run: LoadedRun, folder: Path, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what was trained: tokens, steps and time of each phase, hardware and software.

    ``steps`` are the released records of steps. Runs of older versions did not record the hardware.
    """
    seconds = step_seconds(steps, "tokens")
    events = list(read_records(folder / EVENTS_NAME))
    recipe = plain(run.loaded)
    phases = [_phase(settings, steps, seconds) for settings in recipe["phases"]]
    return {
        "tokens": run.checkpoint.position,
        "planned_tokens": run.planned_tokens,
        "steps": run.checkpoint.state["step"],
        "processes": run.checkpoint.state["world_size"],
        "seed": recipe["seed"],
        "runtime": recipe["runtime"],
        "phases": phases,
        "software": _recorded("software", events),
        "hardware": _recorded("hardware", events),
        "released_with": software(),
        "released_on": machine(),
    }


def _recorded(name: str, events: list[dict[str, Any]]) -> list[Any]:
    """Return each value that starts and resumptions recorded under ``name``, once."""
    used = [event[name] for event in events if name in event]
    return [each for n, each in enumerate(used) if each not in used[:n]]


def _phase(
    settings: dict[str, Any], steps: list[dict[str, Any]], seconds: list[float]
) -> dict[str, Any]:
    """Return the settings of a phase with its steps, tokens and seconds, by the steps' records."""
    starts = [0, *(step["tokens"] for step in steps)]
    own, tokens, taken = [], 0, 0.0
    for start, step, time in zip(starts, steps, seconds, strict=False):
        if step.get("phase") == settings["name"]:
            own.append(step["step"])
            tokens += step["tokens"] - start
            taken += time if math.isfinite(time) else 0.0
    span = [own[0], own[-1]] if own else None
    return {
        "settings": settings,
        "steps": span,
        "tokens": tokens,
        "seconds": round(taken, 1),
    }


def with_rates_and_chunks(
    checkpoints: list[dict[str, Any]],
    steps: list[dict[str, Any]],
    order: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    """Return checkpoints with the learning rate of their step and the chunk that is read next."""
    rates = {step["step"]: step.get("learning_rate") for step in steps}
    ends = [] if order is None else [chunk["position"] for chunk in order["chunks"]]
    return [
        each
        | {
            "learning_rate": rates.get(each["step"]),
            "next_chunk": ends.index(each["tokens"]) + 1 if each["tokens"] in ends[:-1] else None,
        }
        for each in checkpoints
    ]


def metrics(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many steps have records, and each validation with its position."""
    validations = [
        {"step": step["step"], "tokens": step["tokens"]}
        | {name: value for name, value in step.items() if name.startswith("validation/")}
        for step in steps
        if any(name.startswith("validation/") for name in step)
    ]
    return json_values(
        {
            "file": METRICS_NAME,
            "records": len(steps),
            "last": steps[-1] if steps else None,
            "validations": validations,
        }
    )


def events(folder: Path) -> dict[str, Any]:
    """Return how often each kind of event happened, and the steps that were skipped."""
    found: dict[str, int] = {}
    for event in read_records(folder / EVENTS_NAME):
        name = str(event.get("event"))
        found[name] = found.get(name, 0) + 1
    skipped = [record.get("step") for record in read_records(folder / BAD_BATCHES_NAME)]
    return {"file": EVENTS_NAME, "counts": found, "skipped_steps": skipped}


def reproduction(run: LoadedRun, positions: list[int]) -> dict[str, list[str]]:
    """Return the commands that verify, make the data, train, continue and evaluate.

    They are called in the release and write beside it, because a release with further files is not
    whole. The recipe names folders of the machine that trained, so the commands name others.
    """
    torch = (installed_version("torch") or "").partition("+")[0]
    found = {"install": [f"pip install 'feldspar[data,hf]=={__version__}' torch=={torch}"]}
    found["verify"] = ["feldspar release . --verify"]
    if run.recipe.corpus:
        found["data"] = [
            "feldspar corpus build recipe.yaml corpus.path=../again/documents",
            (
                "feldspar tokens build recipe.yaml corpus.path=../again/documents "
                "shards.path=../again/shards"
            ),
            "feldspar release . --verify --shards ../again/shards",
        ]
    found["train"] = ["feldspar train recipe.yaml shards.path=../again/shards --out ../again/run"]
    if positions:
        at = positions[(len(positions) - 1) // 2]
        found["continue"] = [
            f"feldspar release . --unpack ../again/continued --checkpoint {at}",
            (
                "feldspar train ../again/continued shards.path=../again/shards "
                "--out ../again/continued"
            ),
        ]
        found["evaluate"] = ["feldspar evaluate ../again/continued --split validation"]
    return found


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file in the folder."""
    return {name: asdict(record) for name, record in records_of(folder).items()}
