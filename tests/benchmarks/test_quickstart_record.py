"""The attempts at the quickstart's speed record, and the page of their figures."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.contenders.record_attempts import (
    ATTEMPTS,
    RECIPE,
    SHIPPED,
    overrides,
    phases_of,
)
from benchmarks.contenders.record_page import page

from feldspar.recipe.load import load_recipe

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def recipe_values(name: str) -> dict[str, Any]:
    lengths = [10**6] * len(phases_of(name))
    return load_recipe(RECIPE, list(overrides(name, 0, lengths))).recipe.model_dump(mode="json")


@pytest.mark.parametrize("name", [name for name, own in ATTEMPTS.items() if own.base])
def test_an_attempt_is_a_recipe_that_differs_from_its_base(name: str) -> None:
    base = ATTEMPTS[name].base
    assert base is not None
    assert recipe_values(name) != recipe_values(base)


def test_the_quickstart_ships_what_won() -> None:
    shipped = load_recipe(RECIPE).recipe.model_dump(mode="json")
    won = recipe_values(SHIPPED)
    for section in ("model", "tokenizer", "optimizer", "parametrization", "schedule"):
        assert shipped[section] == won[section]
    for own, other in zip(shipped["phases"], won["phases"], strict=True):
        assert own | {"name": "", "length": ""} == other | {"name": "", "length": ""}


def test_time_is_shared_among_the_phases_of_an_attempt() -> None:
    for name in ATTEMPTS:
        assert sum(share for share, _ in phases_of(name)) == pytest.approx(1.0)
    first, second = (own for _, own in phases_of("context-256-512"))
    assert (first["batch"]["sequences"], first["context_length"]) == (8, 256)
    assert (second["batch"]["sequences"], second["context_length"]) == (4, 512)


def test_the_committed_page_is_that_of_its_figures() -> None:
    record = json.loads((RESULTS / "quickstart-record.json").read_text(encoding="utf-8"))
    written = (RESULTS / "quickstart-record.md").read_text(encoding="utf-8")
    assert written == page(record), "benchmarks/quickstart_record.py writes the page"


def stage(attempts: dict[str, list[float | None]]) -> dict[str, Any]:
    """Return a stage in which each attempt is compared with ``start``."""
    rows = {
        name: {
            "change": "a change",
            "base": None if name == "start" else "start",
            "tokens_per_second": [1000.0],
            "runs": {
                str(seed): {"bits_per_byte": value, "tokens": 1_000_000}
                for seed, value in enumerate(values)
            },
        }
        for name, values in attempts.items()
    }
    return {"seconds": 45.0, "attempts": rows}


def test_the_page_judges_an_attempt_by_the_interval_of_its_gain() -> None:
    attempts = {
        "start": [2.0, 2.1, 2.2],
        "lower": [1.9, 2.0, 2.09],
        "slightly": [1.996, 2.096, 2.196],  # 0.2 % with every seed: below the least mean gain
        "mixed": [1.9, 2.2, 2.1],
        "higher": [2.1, 2.2, 2.31],
        "broken": [1.9, 2.0, None],
    }
    stages = {"screening": stage(attempts), "record": stage({"start": [1.6]})}
    text = page({"machine": "a machine", "date": "2026-01-01", "stages": stages})
    rows = {
        cells[1].strip().split(":")[0]: cells[-2].split(" (")[0].strip()
        for line in text.splitlines()
        if line.startswith("| ") and len(cells := line.split("|")) == 9
    }
    assert rows == {
        "attempt": "verdict",
        "start": "-",
        "lower": "better",
        "slightly": "not told apart",
        "mixed": "not told apart",
        "higher": "worse",
        "broken": "diverged",
    }
    assert "2.1000 +-" in text and "1.6000 (one seed)" in text
