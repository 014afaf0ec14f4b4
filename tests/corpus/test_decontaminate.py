"""Decontamination by shared runs of words: planted runs are found, nothing else is."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from feldspar.core.errors import UserError
from feldspar.core.manifest import read_manifest
from feldspar.corpus.build import build_corpus
from feldspar.corpus.decontaminate import Decontaminator, RunsOfWords, words_of
from feldspar.corpus.document import Tolerance
from feldspar.corpus.readers.evaluation import evaluation_items
from feldspar.corpus.store import documents, wanted_documents
from feldspar.recipe.sections.corpus import DecontaminateSettings, EvaluationSet
from tests.corpus.conftest import corpus_settings, prose

letters = st.lists(st.sampled_from("abc"), max_size=12).map(" ".join)


@given(st.lists(letters, max_size=4), letters, st.integers(1, 5))
def test_overlap_is_a_shared_run(items: list[str], text: str, words: int) -> None:
    def runs(value: str) -> set[tuple[str, ...]]:
        split = value.split()
        return {tuple(split[i : i + words]) for i in range(len(split) - words + 1)}

    found = RunsOfWords(words)
    counts = found.add("set", items)
    theirs = set[tuple[str, ...]]().union(*map(runs, items))
    assert counts.ngrams == len(theirs)
    assert counts.short_items == sum(len(item.split()) < words for item in items)
    assert bool(found.overlapping(text)) == bool(theirs & runs(text))


@given(st.text(max_size=80), st.text(max_size=30), st.text(max_size=30))
def test_an_item_is_found_in_any_case_punctuation_and_surroundings(
    item: str, before: str, after: str
) -> None:
    words = words_of(item)
    runs = RunsOfWords(max(1, len(words)))
    runs.add("set", [item])
    shown = f"{before} {'  '.join(words)}, {after}"
    if words:
        assert runs.overlapping(shown) == ["set"]
        assert runs.overlapping(shown.replace(" ", " !? ")) == ["set"]


def test_composed_and_decomposed_letters_are_the_same() -> None:
    composed = "caf\u00e9 na\u00efve \u00fcber \uac00\uac01"
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    for item, text in ((composed, decomposed), (decomposed, composed)):
        runs = RunsOfWords(4)
        assert runs.add("set", [item]).ngrams == 1
        assert runs.overlapping(f"so {text} it is") == ["set"]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_planted_contamination_leaves_and_is_counted(tmp_path: Path) -> None:
    exam = prose(900, 20)
    quiz = prose(901, 13)
    kept = [prose(i) for i in range(6)]
    twelve = " ".join(exam.split()[:12])
    rows = [{"id": f"d{i}", "text": text} for i, text in enumerate(kept)]
    rows += [
        {"id": "exam", "text": prose(50) + " " + exam.upper() + "! " + prose(51)},
        {"id": "both", "text": f"{exam}, {quiz}. {prose(52)}"},
        {"id": "twelve", "text": f"{prose(53)} {twelve} {prose(54)}"},
    ]
    sets = {
        "exam": {"path": write(tmp_path / "exam.jsonl", [{"q": exam, "choices": ["a", "b"]}])},
        "quiz": {"path": str(tmp_path / "quiz.txt")},
    }
    (tmp_path / "quiz.txt").write_text(quiz)
    sources = {"s": {"reader": "jsonl", "path": write(tmp_path / "s.jsonl", rows)}}
    settings = corpus_settings(tmp_path / "out", sources, decontaminate={"sets": sets})
    report = build_corpus(settings, settings.path)
    found = {
        document.id
        for split in ("train", "validation", "test")
        for document in documents(settings.path, split, "s")
    }
    assert found == {*(f"d{i}" for i in range(6)), "twelve"}
    assert report.sources["s"].read.documents == 9
    assert report.removed["overlap"].documents == 2
    counts = read_manifest(settings.path, "documents").counts["decontamination"]
    assert counts == report.decontamination
    size = sum(len(row["text"].encode()) for row in rows[6:8])
    assert counts["sources"] == {"s": {"documents": 2, "bytes": size}}
    overlap = {name: each["documents"] for name, each in counts["sets"].items()}
    assert overlap == {"exam": 2, "quiz": 1}
    # 20 words and two choices: ten runs of 13.
    assert counts["sets"]["exam"]["ngrams"] == 10


def test_which_fields_are_an_item(tmp_path: Path) -> None:
    rows = [{"question": "why", "choices": ["one", "two"], "answer": 1}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    write(tmp_path / "x.jsonl", rows)

    def items(ending: str, *fields: str) -> list[str]:
        return list(evaluation_items("x", tmp_path / f"x.{ending}", fields, Tolerance()))

    for ending in ("jsonl", "parquet"):
        assert items(ending) == ["why one two"]
        assert items(ending, "choices", "question") == ["one two why"]
        with pytest.raises(UserError, match="no field 'prompt'"):
            items(ending, "prompt")


def test_sets_that_come_with_the_package_are_taken_by_name() -> None:
    names = ("bundled:last_word", "bundled:humaneval")
    sets = {name[8:]: EvaluationSet(path=Path(name)) for name in names}
    decontaminator = Decontaminator(DecontaminateSettings(sets=sets), Tolerance(0))
    counts = decontaminator.counts.sets
    assert counts["last_word"].items > 200 and counts["humaneval"].items == 164
    assert counts["last_word"].short_items == 0
    unknown = DecontaminateSettings(sets={"own": EvaluationSet(path=Path("bundled:last_wrod"))})
    with pytest.raises(UserError, match="no evaluation set 'last_wrod'"):
        Decontaminator(unknown, Tolerance(0))


def test_unused_keys_leave_a_corpus_what_it_was(tmp_path: Path) -> None:
    sources = {"s": {"reader": "jsonl", "path": "s.jsonl"}}
    plain = corpus_settings(tmp_path, sources)
    dumped = plain.model_dump(mode="json", exclude={"path"})
    assert "decontaminate" in dumped and "filters" in dumped and "only" in dumped["sources"]["s"]
    elsewhere = corpus_settings(tmp_path / "elsewhere", sources)
    assert wanted_documents(plain).configuration == wanted_documents(elsewhere).configuration
    changed = corpus_settings(tmp_path, {"s": sources["s"] | {"only": {"a": "b"}}})
    assert wanted_documents(changed).configuration != wanted_documents(plain).configuration


def test_the_digest_of_existing_recipes_stays(tmp_path: Path) -> None:
    # Written by the first version, before there were keys to leave out.
    settings = corpus_settings(tmp_path, {"s": {"reader": "jsonl", "path": "s.jsonl"}})
    assert (
        wanted_documents(settings).configuration
        == "16662aaa29a087c5d3e7b6f6d2586bb356a11106bb41d389ddf4bef8aeb03fb8"
    )
