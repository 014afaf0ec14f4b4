"""Building a folder of documents: what it holds, when it is refused, and that it never varies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from feldspar.core.errors import UserError
from feldspar.core.manifest import read_manifest, verify_files
from feldspar.core.progress import SilentListener, listening
from feldspar.corpus.build import build_corpus
from feldspar.corpus.split import SPLITS
from feldspar.corpus.stages import TITLES
from feldspar.corpus.store import documents, sources, wanted_documents
from feldspar.recipe.sections.corpus import CorpusSettings
from feldspar.report.corpus_report import corpus_page
from tests.corpus.conftest import corpus_settings, prose

Jsonl = Callable[[str, list[dict[str, Any]]], Path]


@pytest.fixture
def settings(jsonl: Jsonl, tmp_path: Path) -> CorpusSettings:
    """Two sources with an exact copy each way, a near copy, a short text and many others."""
    first = [{"id": f"a{i}", "text": prose(i)} for i in range(40)]
    first += [{"id": "a-copy", "text": prose(3).upper() + " !"}, {"id": "a-short", "text": "x"}]
    second = [{"id": f"b{i}", "text": prose(100 + i)} for i in range(40)]
    second += [
        {"id": "b-near", "text": prose(5) + " and a bit"},
        {"id": "b-copy", "text": prose(7)},
    ]
    paths = {"a": jsonl("a.jsonl", first), "b": jsonl("b.jsonl", second)}
    return corpus_settings(
        tmp_path / "out",
        {name: {"reader": "jsonl", "path": str(path)} for name, path in paths.items()},
        split={"validation": 0.2, "test": 0.2},
    )


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_folder(settings: CorpusSettings) -> None:
    out = settings.path
    report = build_corpus(settings, out, command="feldspar corpus build x")
    manifest = read_manifest(out, "documents")
    assert verify_files(out, manifest) == []
    assert manifest.configuration == wanted_documents(settings).configuration
    assert manifest.command == "feldspar corpus build x"
    assert sources(out) == ["a", "b"]
    kept = {
        split: [d for name in "ab" for d in documents(out, split, name)]
        for split in ("train", "validation", "test")
    }
    ids = [document.id for found in kept.values() for document in found]
    assert sorted(ids) == sorted([f"{name}{i}" for name in "ab" for i in range(40)])
    assert all(kept.values())
    duplicates = parquet.read_table(out / "duplicates.parquet").to_pylist()
    assert [(row["id"], row["kept_id"]) for row in duplicates] == [
        ("a-copy", "a3"),
        ("b-near", "a5"),
        ("b-copy", "a7"),
    ]
    assert duplicates[0]["jaccard"] == 1.0
    assert 0.8 <= duplicates[1]["jaccard"] < 1.0
    a, b = report.sources["a"], report.sources["b"]
    assert (a.read.documents, b.read.documents) == (42, 42)
    removed = {
        name: [each.documents for each in counts.removed.values()]
        for name, counts in report.sources.items()
    }
    assert list(a.removed) == ["short", "exact", "near"]
    assert removed == {"a": [1, 1, 0], "b": [0, 1, 1]}
    for counts in (a, b):
        parts = [*counts.removed.values(), counts.kept]
        assert counts.read.documents == sum(amount.documents for amount in parts)
        assert counts.read.bytes == sum(amount.bytes for amount in parts)
    assert report.lost_to["b"]["a"].documents == 2
    assert report.pairs["a"] == {"a": 1, "b": 2}
    sizes = [len(prose(i).encode()) for i in (3, 5, 7)]
    assert report.pair_bytes == {
        "a": {"a": sizes[0], "b": sum(sizes[1:])},
        "b": {"a": sum(sizes[1:]), "b": 0},
    }
    assert (b.dropped_global, b.dropped_local) == (2, 0)
    assert report.cluster_sizes == {"1": 77, "2": 3}
    assert report.below_threshold == 0.0
    assert json.loads((out / "report.json").read_text()) == report.to_json()


class InterruptAt(SilentListener):
    """Stops the process, as Ctrl-C would, when a named piece of work begins."""

    def __init__(self, title: str) -> None:
        self._title = title

    def start(self, title: str, total: float | None, unit: str) -> Callable[[float], None]:
        if title == self._title:
            raise KeyboardInterrupt
        return super().start(title, total, unit)


def test_same_bytes_for_any_workers_and_after_a_kill(
    settings: CorpusSettings, tmp_path: Path
) -> None:
    build_corpus(settings, tmp_path / "one", workers=1)
    for title in TITLES.values():
        with pytest.raises(KeyboardInterrupt), listening(InterruptAt(title)):
            build_corpus(settings, tmp_path / "two")
        assert not (tmp_path / "two").exists()
    (tmp_path / "two.incomplete-work-killed").mkdir()
    build_corpus(settings, tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert not list(tmp_path.glob("*.incomplete-*"))


def test_finished_changed_and_foreign_folders(settings: CorpusSettings, tmp_path: Path) -> None:
    out = settings.path
    first = build_corpus(settings, out)
    before = (out / "manifest.json").stat().st_mtime_ns
    again = build_corpus(settings, out)
    assert first.built and not again.built
    assert again.to_json() == first.to_json()
    assert (out / "manifest.json").stat().st_mtime_ns == before
    other = settings.model_copy(update={"deduplicate": None})
    with pytest.raises(UserError, match="other settings"):
        build_corpus(other, out)
    report = build_corpus(other, out, overwrite=True)
    assert report.dropped == 0
    foreign = tmp_path / "home"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds no manifest"):
        build_corpus(settings, foreign, overwrite=True)
    assert (foreign / "letter.txt").exists()


def test_a_failed_build_leaves_nothing(jsonl: Jsonl, tmp_path: Path) -> None:
    path = jsonl("a.jsonl", [{"text": "too short"}])
    settings = corpus_settings(tmp_path / "out", {"a": {"reader": "jsonl", "path": str(path)}})
    with pytest.raises(UserError, match="no document left after cleaning: of 1 read, 1"):
        build_corpus(settings, settings.path)
    assert [each.name for each in tmp_path.iterdir()] == ["a.jsonl"]


def test_sources_keep_the_recipes_order(jsonl: Jsonl, tmp_path: Path) -> None:
    names = ["zebra", "ant", "Mole"]
    paths = {n: jsonl(f"{n}.jsonl", [{"text": prose(i)}]) for i, n in enumerate(names)}
    given = {name: {"reader": "jsonl", "path": str(path)} for name, path in paths.items()}
    settings = corpus_settings(tmp_path / "out", given)
    build_corpus(settings, settings.path)
    assert sources(settings.path) == names


def test_bad_records_are_counted(settings: CorpusSettings, tmp_path: Path) -> None:
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write("no json\n")
    with pytest.raises(UserError, match=r"b\.jsonl:43 is not valid JSON"):
        build_corpus(settings, settings.path)
    report = build_corpus(settings, settings.path, skip_bad=1)
    assert report.bad_records == {"b": 1}
    assert read_manifest(settings.path, "documents").warnings == ["1 bad records were left out"]


def test_ids_that_repeat_are_counted_and_places_tell_the_documents_apart(
    jsonl: Jsonl, tmp_path: Path
) -> None:
    records = [{"id": "same", "text": prose(i)} for i in (0, 1, 0)]
    given = {
        name: {"reader": "jsonl", "path": str(jsonl(f"{name}/x.jsonl", records[:count]))}
        for name, count in (("a", 2), ("b", 3))
    }
    settings = corpus_settings(tmp_path / "out", given)
    report = build_corpus(settings, settings.path)
    assert report.repeated_ids == 5
    told = ["5 documents have an id that another has"]
    assert read_manifest(settings.path, "documents").warnings == told
    assert "Documents with an id that another has: 5." in corpus_page(settings.path)
    rows = parquet.read_table(settings.path / "duplicates.parquet").to_pylist()
    assert {row["id"] for row in rows} == {row["kept_id"] for row in rows} == {"same"}
    places = [
        [row[f"{kept}{name}"] for kept in ("", "kept_") for name in ("source", "origin")]
        for row in rows
    ]
    assert places == [
        ["b", "x.jsonl:1", "a", "x.jsonl:1"],
        ["b", "x.jsonl:2", "a", "x.jsonl:2"],
        ["b", "x.jsonl:3", "a", "x.jsonl:1"],
    ]
    kept = [d for split in SPLITS for d in documents(settings.path, split, "a")]
    assert sorted(document.text for document in kept) == sorted([prose(0), prose(1)])


def test_reading_what_is_not_there(settings: CorpusSettings, tmp_path: Path) -> None:
    build_corpus(settings, settings.path)
    with pytest.raises(UserError, match="no source 'c'"):
        list(documents(settings.path, "train", "c"))
    with pytest.raises(UserError, match="no split 'dev'"):
        list(documents(settings.path, "dev", "a"))
    with pytest.raises(UserError, match=r"holds no manifest\.json"):
        sources(tmp_path)


def test_a_source_in_other_letters(jsonl: Jsonl, tmp_path: Path) -> None:
    path = str(jsonl("a.jsonl", [{"id": f"a{i}", "text": prose(i)} for i in range(20)]))
    plain = {"reader": "jsonl", "path": path}
    other = plain | {"transliterate": {"from": "aeE", "to": "\u0627\u0628\u0628"}}
    settings = corpus_settings(tmp_path / "out", {"plain": plain, "other": other})
    build_corpus(settings, settings.path)
    found = {
        name: {d.id: d.text for split in SPLITS for d in documents(settings.path, split, name)}
        for name in ("plain", "other")
    }
    assert found["plain"].keys() == found["other"].keys() and found["plain"]
    for name, text in found["plain"].items():
        expected = "".join({"a": "\u0627", "e": "\u0628", "E": "\u0628"}.get(c, c) for c in text)
        assert found["other"][name] == expected != text
    same = corpus_settings(tmp_path / "out", {"plain": plain, "other": plain})
    assert wanted_documents(settings).configuration != wanted_documents(same).configuration


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"from": "ab", "to": "x"}, "it has 1 characters, but from has 2"),
        ({"from": "aba", "to": "xyz"}, "a character appears twice"),
        ({"from": "", "to": ""}, "at least 1 character"),
    ],
)
def test_letters_that_do_not_pair(value: dict[str, str], message: str, tmp_path: Path) -> None:
    source = {"reader": "jsonl", "path": "x", "transliterate": value}
    with pytest.raises(ValueError, match=message):
        corpus_settings(tmp_path, {"s": source})
