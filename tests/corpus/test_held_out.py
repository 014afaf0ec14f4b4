"""Copies of held-out documents: which ones a split lets into train, measured for each way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feldspar.corpus.build import build_corpus
from feldspar.corpus.store import documents
from feldspar.recipe.sections.corpus import SplitSettings
from tests.corpus.conftest import corpus_settings, prose

Jsonl = Callable[[str, list[dict[str, Any]]], Path]
SHARES = {"validation": 0.3, "test": 0.1}


def edited(number: int) -> str:
    return prose(number).rsplit(" ", 2)[0] + " and then"


@pytest.fixture
def sources(jsonl: Jsonl) -> dict[str, Any]:
    """Every text of a is in b again: the even ones in capitals, the odd ones with another end."""
    count = 60
    a = [{"id": f"a{i}", "text": prose(i)} for i in range(count)]
    b = [{"id": f"b{i}", "text": edited(i) if i % 2 else prose(i).upper()} for i in range(count)]
    paths = {"a": jsonl("a.jsonl", a), "b": jsonl("b.jsonl", b)}
    return {name: {"reader": "jsonl", "path": str(path)} for name, path in paths.items()}


def sides(out: Path) -> dict[str, str]:
    return {
        document.id: "train" if split == "train" else "held out"
        for split in ("train", "validation", "test")
        for name in "ab"
        for document in documents(out, split, name)
    }


@pytest.mark.parametrize("deduplicate", [{"scope": "local"}, None])
@pytest.mark.parametrize("way", ["near", "exact", None])
def test_copies_in_train_are_kept_out_as_asked_and_counted(
    sources: dict[str, Any], tmp_path: Path, deduplicate: Any, way: Any
) -> None:
    split = {**SHARES, "decontamination": way}
    settings = corpus_settings(tmp_path / "out", sources, deduplicate=deduplicate, split=split)
    report = build_corpus(settings, settings.path)
    found = sides(settings.path)
    assert len(found) == 120, "copies between sources stay"
    apart = [number for number in range(60) if found[f"a{number}"] != found[f"b{number}"]]
    exact, near = (sum(number % 2 == kind for number in apart) for kind in (0, 1))
    assert (exact > 0, near > 0) == (way is None, way != "near")
    counted = json.loads((settings.path / "report.json").read_text())["copies_in_train"]
    assert set(counted) == {"exact", *(["near"] if deduplicate or way == "near" else [])}
    assert counted["exact"]["exact"] == {"documents": 0, "bytes": 0}
    if "near" in counted:
        assert counted["near"] == {kind: {"documents": 0, "bytes": 0} for kind in ("exact", "near")}
    else:
        assert counted["exact"]["near"] is None
    if way == "exact" and deduplicate:
        assert counted["exact"]["near"]["documents"] == near
        size = sum(
            len((prose(n) if found[f"a{n}"] == "train" else edited(n)).encode()) for n in apart
        )
        assert counted["exact"]["near"]["bytes"] == size
    assert report.dropped == 0


def test_near_is_the_default() -> None:
    assert SplitSettings().decontamination == "near"
