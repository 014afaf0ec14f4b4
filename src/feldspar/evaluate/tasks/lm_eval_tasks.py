"""Write tasks for lm-eval from held-out text, so that any run can be evaluated offline.

The cloze task shows the beginning of a document and asks for the next line: the true one, or a line
from three other documents. The second task is lm-eval's bits per byte.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.files import write_atomically
from feldspar.core.json_files import json_text, write_json
from feldspar.core.streams import numpy_stream

CHOICES = 4
SHORTEST_LINE_CHARACTERS = 12


def write_cloze_task(
    folder: Path,
    documents: Sequence[str],
    name: str = "held_out",
    *,
    context_characters: int = 400,
    seed: int = 0,
) -> tuple[str, str]:
    """Write the tasks ``NAME_cloze`` and ``NAME_bits`` with their data, and return their names.

    Each document with two lines of sufficient length gives one item, with at most
    ``context_characters`` before the line. Raises UserError if fewer than four documents do.
    """
    items = cloze_items(documents, context_characters, seed)
    cloze, bits = f"{name}_cloze", f"{name}_bits"
    _write_task(
        folder,
        cloze,
        items,
        {
            "output_type": "multiple_choice",
            "doc_to_text": "{{context}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "answer",
            "target_delimiter": "\n",
            "metric_list": _metrics("acc", "acc_norm", aggregation="mean", higher_is_better=True),
            "metadata": {"version": 1.0, "chance": 1 / CHOICES},
        },
    )
    _write_task(
        folder,
        bits,
        [{"text": text} for text in documents if text],
        {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [
                *_metrics("bits_per_byte", aggregation="bits_per_byte", higher_is_better=False),
                *_metrics(
                    "byte_perplexity",
                    "word_perplexity",
                    aggregation="weighted_perplexity",
                    higher_is_better=False,
                ),
            ],
        },
    )
    return cloze, bits


def cloze_items(
    documents: Sequence[str], context_characters: int, seed: int
) -> list[dict[str, Any]]:
    """Return one item for each document: ``context``, four ``choices``, index of the ``answer``."""
    lines = [_usable_lines(text) for text in documents]
    owners = [number for number, places in enumerate(lines) if len(places) > 1]
    if len(owners) < CHOICES:
        raise UserError(
            f"only {len(owners)} documents have two lines of {SHORTEST_LINE_CHARACTERS} "
            f"characters, but a choice needs {CHOICES}"
        )
    rng = numpy_stream(seed, "evaluate.cloze")
    items = []
    for owner in owners:
        begin, line = lines[owner][int(rng.integers(1, len(lines[owner])))]
        context = documents[owner][:begin].rstrip("\n")[-context_characters:]
        others = [number for number in owners if number != owner]
        wrong = [_another_line(lines[number], rng) for number in _draw(others, rng)]
        answer = int(rng.integers(CHOICES))
        choices = [*wrong[:answer], line, *wrong[answer:]]
        if len(set(choices)) == CHOICES:  # a line that many documents share cannot be asked for
            items.append({"context": context, "choices": choices, "answer": answer})
    return items


def _draw(numbers: list[int], rng: np.random.Generator) -> list[int]:
    return [numbers[place] for place in rng.choice(len(numbers), CHOICES - 1, replace=False)]


def _another_line(lines: list[tuple[int, str]], rng: np.random.Generator) -> str:
    return lines[int(rng.integers(1, len(lines)))][1]


def _usable_lines(text: str) -> list[tuple[int, str]]:
    """Return the longer lines and their beginnings."""
    found, place = [], 0
    for line in text.split("\n"):
        if len(line.strip()) >= SHORTEST_LINE_CHARACTERS:
            found.append((place, line.rstrip()))
        place += len(line) + 1
    return found


def _metrics(*names: str, aggregation: str, higher_is_better: bool) -> list[dict[str, Any]]:
    """Return metrics with all properties; lm-eval warns of each property that is missing."""
    shared = {"aggregation": aggregation, "higher_is_better": higher_is_better}
    return [{"metric": name} | shared for name in names]


def _write_task(
    folder: Path, name: str, rows: list[dict[str, Any]], settings: dict[str, Any]
) -> None:
    data = folder / f"{name}.jsonl"
    write_atomically(data, "".join(json_text(row, indent=None) for row in rows))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
        "test_split": "test",
        **settings,
    }
    # JSON is valid YAML and needs no rules for quotes.
    write_json(folder / f"{name}.yaml", task)
