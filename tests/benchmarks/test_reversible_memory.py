"""The committed figures of reversible execution: flat memory, and what the docs show of them."""

import copy
import importlib
from pathlib import Path

import pytest
from benchmarks.reversible_memory import RESULTS, not_flat, tables

from feldspar.core.json_files import read_json

PAGE = Path(__file__).parents[2] / "docs" / "methods" / "reversible.md"


def test_memory_is_flat_in_depth_and_a_growing_one_is_named() -> None:
    record = read_json(RESULTS)
    assert record["decoder"]["depth"]["values"] == [4, 8, 16, 32]
    assert not_flat(record) == []
    steeper = copy.deepcopy(record)
    steeper["revbifpn"]["depth"]["bytes"]["reversible"][-1] *= 2
    assert [line.split(":")[0] for line in not_flat(steeper)] == ["revbifpn, reversible"]


def test_the_docs_show_the_committed_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(table in page for table in tables(read_json(RESULTS)).split("\n\n"))


def test_the_docs_show_the_committed_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(RESULTS.parents[1])  # benchmarks import each other by bare names
    losses = importlib.import_module("reversible_loss")
    assert losses.table(read_json(losses.RESULTS)) in PAGE.read_text(encoding="utf-8")
