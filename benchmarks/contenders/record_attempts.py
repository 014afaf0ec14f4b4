"""The attempts at the quickstart's speed record: each is one change of an earlier attempt.

``START`` holds every setting that an attempt changes, as the quickstart's recipe had it before any
attempt. So a run does not depend on what the recipe ships today.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RECIPE = "quickstart"
SPARSE = {"type": "static", "sparsity": 0.75, "block": [4, 1]}
MUON = {"type": "muon", "betas": [0.9, 0.95], "weight_decay": 0.1, "clip_norm": 1.0}


@dataclass(frozen=True)
class Attempt:
    """One change, and the attempt that it changes."""

    change: str
    """Words for the page."""
    base: str | None
    """The attempt that this one changes and is compared with; None for the start."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Changed settings of the recipe, by dotted key."""
    phase: Mapping[str, Any] = field(default_factory=dict)
    """Changed settings of every phase."""
    parts: tuple[tuple[float, Mapping[str, Any]], ...] = ()
    """Phases as their shares of the time, with the settings of each; one phase where empty."""


def shape(d_model: int, n_layers: int, d_ff: int) -> dict[str, int]:
    """Return the settings of a model's shape, with heads of 32."""
    return {
        "model.d_model": d_model,
        "model.n_layers": n_layers,
        "model.n_heads": d_model // 32,
        "model.d_ff": d_ff,
    }


def vocabulary(size: int) -> dict[str, Any]:
    """Return the settings of a tokenizer with ``size`` tokens, whose shards have a folder."""
    folder = "shards" if size == 4096 else f"shards-{size}"
    return {
        "tokenizer": {"type": "train_bpe", "vocab_size": size, "sample_bytes": 8_000_000},
        "shards.path": f"data/quickstart/{folder}",
    }


def rate(peak: float) -> dict[str, float]:
    """Return the setting of the peak learning rate."""
    return {"parametrization.learning_rate": peak}


def decay(warm_up: str, final: float) -> dict[str, Any]:
    """Return a linear warm-up and a linear decay as shares of the peak rate."""
    course = [{"to": 1, "over": f"{warm_up} of run"}, {"to": final, "over": "rest"}]
    return {"schedule.learning_rate": course}


START: dict[str, Any] = {
    **shape(128, 4, 344),
    **vocabulary(4096),
    **rate(8e-3),
    **decay("3%", 0.02),
    "model.max_sequence_length": 256,
    "optimizer": MUON | {"type": "adamw"},
    "runtime.masked_products": "sparse",
}
PHASE: dict[str, Any] = {
    "mixture": {"django-docs": 0.22, "django-code": 0.22, "py-stdlib": 0.4, "shakespeare": 0.16},
    "batch": {"sequences": 8},
}
LONG = {"model.max_sequence_length": 512}
TWO_CONTEXTS = (
    (0.6, {"context_length": 256}),
    (0.4, {"context_length": 512, "batch": {"sequences": 4}}),
)
ATTEMPTS: dict[str, Attempt] = {
    "start": Attempt("AdamW at 8e-3, 8 sequences of 256, d 128, 4 layers, 4,096 tokens", None),
    "adamw-4e-3": Attempt("AdamW at half the rate: 4e-3", "start", rate(4e-3)),
    "adamw-16e-3": Attempt("AdamW at twice the rate: 16e-3", "start", rate(16e-3)),
    "muon": Attempt("Muon at 16e-3", "start", {"optimizer": MUON, **rate(16e-3)}),
    "rate-8e-3": Attempt("half the rate: 8e-3", "muon", rate(8e-3)),
    "rate-32e-3": Attempt("twice the rate: 32e-3", "muon", rate(32e-3)),
    "schedule": Attempt("warm-up over 1 %, decay to 0 instead of 2 %", "muon", decay("1%", 0.0)),
    "batch-4": Attempt("4 sequences a step", "muon", phase={"batch": {"sequences": 4}}),
    "steered": Attempt(
        "batch steered by noise scale, from 4 to 32 sequences",
        "muon",
        {"noise_scale": {}},
        phase={
            "batch": {"type": "noise_scale", "minimum": "4 sequences", "maximum": "32 sequences"}
        },
    ),
    "shape-96": Attempt("smaller: d 96, 3 layers", "muon", shape(96, 3, 256)),
    "shape-160": Attempt("wider: d 160, 4 layers", "muon", shape(160, 4, 432)),
    "vocabulary-2048": Attempt("2,048 tokens in the vocabulary", "muon", vocabulary(2048)),
    "context-512": Attempt(
        "4 sequences of 512 tokens", "muon", LONG, phase={"batch": {"sequences": 4}}
    ),
    "context-256-512": Attempt(
        "two contexts: 256 tokens for 60 % of the time, then 512",
        "muon",
        LONG,
        parts=TWO_CONTEXTS,
    ),
    "sparse-256": Attempt(
        "d 256, of which blocks of 4 x 1 keep a quarter",
        "muon",
        shape(256, 4, 688),
        phase={"sparsity": SPARSE},
    ),
    "small-8e-3": Attempt("the smaller model at half the rate: 8e-3", "shape-96", rate(8e-3)),
    "small-256-512": Attempt(
        "the smaller model with two contexts: 256 tokens for 60 % of the time, then 512",
        "shape-96",
        LONG,
        parts=TWO_CONTEXTS,
    ),
    "small-10e-3": Attempt(
        "the smaller model at 10e-3, where a parabola through three rates has its minimum",
        "small-8e-3",
        rate(10e-3),
    ),
    "small-4e-3": Attempt(
        "the smaller model at a quarter of the rate: 4e-3", "small-8e-3", rate(4e-3)
    ),
    "small-8e-3-256-512": Attempt(
        "the smaller model at 8e-3, with two contexts: 256 tokens for 60 % of the time, then 512",
        "small-8e-3",
        LONG,
        parts=TWO_CONTEXTS,
    ),
}
SHIPPED = "small-10e-3"
"""The attempt whose settings the quickstart ships."""


def settings_of(name: str) -> dict[str, Any]:
    """Return all settings of an attempt outside its phases."""
    attempt = ATTEMPTS[name]
    before = START if attempt.base is None else settings_of(attempt.base)
    return before | dict(attempt.settings)


def phases_of(name: str) -> list[tuple[float, dict[str, Any]]]:
    """Return the phases of an attempt as their shares of the time and their settings."""
    attempt = ATTEMPTS[name]
    before = [(1.0, PHASE)] if attempt.base is None else phases_of(attempt.base)
    if attempt.parts:
        before = [(share, before[0][1] | dict(own)) for share, own in attempt.parts]
    return [(share, own | dict(attempt.phase)) for share, own in before]


def overrides(name: str, seed: int, lengths: list[int]) -> tuple[str, ...]:
    """Return the overrides of a run whose phases have ``lengths`` tokens."""
    phases = [
        own | {"name": f"part-{index}", "length": f"{tokens} tokens"}
        for index, ((_, own), tokens) in enumerate(zip(phases_of(name), lengths, strict=True))
    ]
    values = settings_of(name) | {
        "seed": seed,
        "phases": phases,
        "evaluation": {"every": "100% of run", "validation_sequences": 8},
        "checkpoints.every": "100% of run",
    }
    return tuple(f"{key}={json.dumps(value)}" for key, value in values.items())


def part_overrides(name: str) -> list[tuple[str, ...]]:
    """Return the overrides of a run of each phase of an attempt alone, to time its steps."""
    found = []
    for _, own in phases_of(name):
        phase = own | {"name": "timed", "length": "5e5 tokens"}
        values = settings_of(name) | {"phases": [phase]}
        found.append(tuple(f"{key}={json.dumps(value)}" for key, value in values.items()))
    return found


def sequence_tokens(name: str) -> list[int]:
    """Return the tokens of a step of each phase; those of the first step where the batch grows."""
    longest = settings_of(name)["model.max_sequence_length"]
    return [
        own.get("context_length", longest) * smallest_batch(own["batch"])
        for _, own in phases_of(name)
    ]


def smallest_batch(batch: Mapping[str, Any]) -> int:
    """Return the sequences of a step, or of the first step of a batch that grows."""
    return batch["sequences"] if "sequences" in batch else int(batch["minimum"].split()[0])
