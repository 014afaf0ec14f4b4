"""Readings of repeated text, against a corpus whose copies are counted by hand."""

import json
from pathlib import Path

import pytest

from feldspar.corpus.build import build_corpus
from feldspar.papers.slimpajama_dc.corpora import repetition_section, repetitions
from tests.corpus.conftest import corpus_settings, prose

COPIES = {"a": 2, "b": 2, "c": 1}
"""Copies of the recurring text in each source; each source has one text of its own too."""
KEEP_ALL = {"split": {"validation": 0, "test": 0}}


def build(folder: Path, **more: object) -> Path:
    sources = {}
    for number, (name, copies) in enumerate(COPIES.items()):
        texts = [prose(0)] * copies + [prose(1 + number)]
        rows = [{"id": f"{name}{i}", "text": text} for i, text in enumerate(texts)]
        path = folder.with_name(f"{name}.jsonl")  # the same for all: places name documents
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sources[name] = {"reader": "jsonl", "path": str(path)}
    build_corpus(corpus_settings(folder, sources, **KEEP_ALL, **more), folder)
    return folder


def test_readings_count_copies_and_passes(tmp_path: Path) -> None:
    corpora = {
        "none": build(tmp_path / "none", deduplicate=None),
        "local": build(tmp_path / "local", deduplicate={"scope": "local"}),
        "global": build(tmp_path / "global"),
    }
    recurring = len(prose(0).encode())
    once = sum(len(prose(1 + number).encode()) for number in range(3))
    tokens = 100_000
    found = repetitions(corpora, "global", tokens)
    for name, copies in (("none", 5), ("local", 3), ("global", 1)):
        item = found[name]
        size = copies * recurring + once
        assert (item.documents, item.bytes) == (copies + 3, size)
        assert item.passes == pytest.approx(tokens / size)
        assert item.once == pytest.approx(tokens / size)
        assert item.recurring == pytest.approx(copies * tokens / size)
        worn = [(copies * item.passes - 4) * recurring, (item.passes - 4) * once]
        assert item.worn == pytest.approx(sum(max(0.0, part) for part in worn) / tokens)
    assert [row[0] for row in repetition_section(found).tables[0].rows] == list(found)


def test_a_short_run_wears_nothing(tmp_path: Path) -> None:
    corpora = {"none": build(tmp_path / "none", deduplicate=None), "global": build(tmp_path / "g")}
    assert [item.worn for item in repetitions(corpora, "global", 100).values()] == [0, 0]
