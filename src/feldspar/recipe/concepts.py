"""Find the keys of recipes that a word of the field is about: wsd, warmup, parquet, muon."""

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from pydantic.fields import FieldInfo

MOST_KEYS = 12
"""Keys that are shown for one word."""

CONCEPTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "warmup": (
        "The first segment of a schedule: [{to: 1, over: 3% of run}, {to: 0.1, over: rest}]",
        ("schedule.learning_rate", "phases.N.learning_rate", "phases.N.optimizer_state"),
    ),
    "wsd": (
        "[{to: 1, over: 2% of run}, {to: 1, over: 78% of run, shape: hold}, {to: 0, over: rest}]",
        ("schedule.learning_rate", "phases.N.learning_rate"),
    ),
    "cosine": (
        "A shape of a segment: [{to: 1, over: 1% of run}, {to: 0.1, over: rest, shape: cosine}]",
        ("schedule.learning_rate", "phases.N.learning_rate"),
    ),
    "decay": (
        "The last segment of a schedule lowers the rate: {to: 0.1, over: rest}",
        ("schedule.learning_rate", "optimizer.weight_decay", "schedule.weight_decay"),
    ),
    "mup": (
        "Maximal update parametrization: the learning rate stays right over widths",
        ("parametrization.type", "parametrization.base_d_model", "study.vary"),
    ),
    "gqa": ("Grouped-query attention: fewer key heads than heads", ("model.n_kv_heads",)),
    "rope": ("Rotary positions", ("model.positions", "phases.N.position_scaling")),
    "yarn": ("Scaling of positions to a longer context", ("phases.N.position_scaling",)),
    "gradientclipping": ("Limit of the gradient's norm", ("optimizer.clip_norm",)),
    "gradientaccumulation": (
        "A step's sequences are computed in micro-batches",
        ("runtime.micro_batch_sequences", "phases.N.batch"),
    ),
    "batchsize": ("Sequences of an optimizer step", ("phases.N.batch",)),
    "contextlength": (
        "Tokens that the model sees at once",
        ("model.max_sequence_length", "phases.N.context_length"),
    ),
    "mixedprecision": ("Data type of matrix products", ("runtime.precision",)),
    "gradientcheckpointing": (
        "Compute activations again in the backward pass",
        ("runtime.activation_memory",),
    ),
    "distributed": ("Several processes, started by torchrun", ("runtime.distribution",)),
    "finetuning": (
        "Start from a model, and train on text, pairs or conversations",
        ("start_from", "phases.N.data", "phases.N.lora", "phases.N.trainable"),
    ),
    "heldout": (
        "Documents that training does not read",
        ("corpus.split", "evaluation.holdout", "evaluation.every"),
    ),
    "deduplication": ("Removal of duplicates by MinHash", ("corpus.deduplicate",)),
    "pruning": ("Masked matrices that grow sparser", ("phases.N.sparsity",)),
    "epochs": (
        "Passes over the text",
        ("phases.N.length", "phases.N.allow_repeat", "phases.N.mixture"),
    ),
    "hyperparametersearch": ("Tune a small model, verify on larger ones", ("study.vary",)),
}
"""Words without a key of their own: what they mean here, and the keys that matter."""

SYNONYMS = {
    "warmups": "warmup",
    "warmupstabledecay": "wsd",
    "trapezoidal": "wsd",
    "annealing": "decay",
    "cooldown": "decay",
    "maximalupdateparametrization": "mup",
    "mutransfer": "mup",
    "mqa": "gqa",
    "groupedqueryattention": "gqa",
    "kvheads": "gqa",
    "rotary": "rope",
    "ntk": "yarn",
    "longcontext": "yarn",
    "clipping": "gradientclipping",
    "gradclip": "gradientclipping",
    "clip": "gradientclipping",
    "accumulation": "gradientaccumulation",
    "gradaccum": "gradientaccumulation",
    "microbatch": "gradientaccumulation",
    "batch": "batchsize",
    "sequencelength": "contextlength",
    "seqlen": "contextlength",
    "context": "contextlength",
    "bf16": "mixedprecision",
    "fp16": "mixedprecision",
    "amp": "mixedprecision",
    "activationcheckpointing": "gradientcheckpointing",
    "recompute": "gradientcheckpointing",
    "multigpu": "distributed",
    "torchrun": "distributed",
    "finetune": "finetuning",
    "sft": "finetuning",
    "pretrained": "finetuning",
    "continuedpretraining": "finetuning",
    "validation": "heldout",
    "testset": "heldout",
    "dedup": "deduplication",
    "duplicates": "deduplication",
    "minhash": "deduplication",
    "epoch": "epochs",
    "sweep": "hyperparametersearch",
    "tuning": "hyperparametersearch",
}
"""Other words for the same."""

Keys = Mapping[str, Sequence[FieldInfo]]


def explain_concept(word: str, keys: Keys) -> list[str]:
    """Return lines on the keys that ``word`` is about; none where no key is."""
    plain = _plain(word)
    meaning, first = CONCEPTS.get(SYNONYMS.get(plain, plain), ("", ()))
    found = {key: _about(keys[key][0]) for key in first}
    for key, about in _ranked(plain, keys):
        found.setdefault(key, about)
    if not found:
        return []
    lines = [f"{word}: {meaning}"] if meaning else []
    shown = list(found.items())[: max(MOST_KEYS, len(first))]
    lines += [f"{key}: {about}" for key, about in shown]
    if len(found) > len(shown):
        rest = ", ".join(list(found)[len(shown) :][:MOST_KEYS])
        lines.append(f"also: {rest}" + (", ..." if len(found) > len(shown) + MOST_KEYS else ""))
    key = shown[0][0]
    return [*lines, f"more on one of them: feldspar config explain {key}"]


def nearest_concepts(word: str, keys: Keys) -> list[str]:
    """Return words that ``explain_concept`` knows and that are written much like ``word``."""
    parts = {part for key in keys for part in key.split(".") if part not in ("N", "NAME")}
    choices = {choice for fields in keys.values() for each in fields for choice in _choices(each)}
    known = {_plain(each): each for each in (*CONCEPTS, *SYNONYMS, *choices, *parts)}
    return [known[each] for each in get_close_matches(_plain(word), known, n=3, cutoff=0.6)]


def _ranked(word: str, keys: Keys) -> list[tuple[str, str]]:
    """Return the keys that have the word as name, as choice or in their text, the best first."""
    ranked = []
    for place, (key, fields) in enumerate(keys.items()):
        for each in fields:
            rank = _rank(word, key, each)
            if rank is not None:
                ranked.append((rank, key.count("."), place, key, _about(each)))
    return [(key, about) for *_, key, about in sorted(ranked)]


def _rank(word: str, key: str, field: FieldInfo) -> int | None:
    """Return how well a key fits a word, 0 best; None where it does not."""
    if word == _plain(key.rsplit(".", 1)[-1]):
        return 0
    if word in map(_plain, _choices(field)):
        return 1
    if word in set(_words(_about(field))):
        return 2
    return None


def _about(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _choices(field: FieldInfo) -> Iterator[str]:
    """Yield the texts that a field may hold."""
    yield from (each for each in _literals(field.annotation) if isinstance(each, str))


def _literals(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        yield from typing.get_args(annotation)
        return
    for argument in typing.get_args(annotation):
        yield from _literals(argument)


def _words(text: str) -> Iterator[str]:
    """Yield the words of a text, and neighbours written as one, in plain letters."""
    words = [_plain(each) for each in re.findall(r"[\w-]+", text)]
    yield from words
    yield from (first + second for first, second in pairwise(words))


def _plain(text: str) -> str:
    """Return a word in small letters without hyphens, spaces and underscores."""
    return re.sub(r"[\s_-]+", "", text.lower())
