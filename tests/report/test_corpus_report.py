"""The page of a corpus, made from folders that the commands wrote."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.core.errors import RunError, UserError
from feldspar.core.manifest import read_manifest, verify_files
from feldspar.corpus.build import build_corpus
from feldspar.corpus.files import deduplicate_files
from feldspar.recipe.sections.corpus import DeduplicateSettings
from feldspar.report.bars import heat_map
from feldspar.report.corpus_report import corpus_page, write_corpus_report
from feldspar.report.page import compare
from tests.corpus.conftest import corpus_settings, prose

HOSTILE = "<script>alert(1)</script> &amp; "


def write(path: Path, records: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deduplication of two sources: three dropped documents, one of them across."""
    place = tmp_path_factory.mktemp("page")
    records = [{"source": "web", "id": f"w{i}", "text": prose(i)} for i in range(5)]
    records += [
        {"source": "web", "id": "copy", "text": prose(1)},
        {"source": "web", "id": "near", "text": HOSTILE + prose(2) + HOSTILE},
        {"source": "web", "id": "short", "text": "x"},
        {"source": "books", "id": "b0", "text": prose(10)},
        {"source": "books", "id": HOSTILE, "text": prose(3)},
    ]
    write(place / "x.jsonl", records)
    deduplicate_files([place / "x.jsonl"], place / "out", DeduplicateSettings())
    return place / "out"


class Page(HTMLParser):
    """The visible text, the marked text, the tags, and every address that is referred to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.text = self.marked = ""
        self.rows: dict[str, list[str]] = {}
        self._cells: list[str] = []
        self.tags: set[str] = set()
        self.outside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.stack.append(tag)
        self.tags.add(tag)
        if tag == "tr":
            self._cells = []
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.outside.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr" and self._cells:
            self.rows.setdefault(self._cells[0], self._cells[1:])
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.stack and self.stack[-1] in ("td", "th"):
            self._cells.append(data.strip())
        if "mark" in self.stack:
            self.marked += data


def test_the_page_tells_what_was_removed_and_escapes_all_text(folder: Path) -> None:
    page = Page(corpus_page(folder))
    assert page.outside == []
    assert HOSTILE.strip() in page.text
    assert "alert" in page.marked, "what only one text of the near pair holds"
    assert prose(2).split()[0] not in page.marked
    assert "6 of 10 documents were kept" in page.text
    row = page.rows["all sources"]
    assert row == ["10", "1", "2", "1", "6", "40.00 %"]
    for heading in ("Mixture before and after", "Who duplicated whom", "Lengths", "Clusters"):
        assert heading in page.text
    assert "Not recorded" not in page.text


def test_the_page_of_built_documents_and_where_it_is_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": prose(i % 4)} for i in range(6)])
    settings = corpus_settings(tmp_path / "docs", {"a": {"reader": "jsonl", "path": str(path)}})
    build_corpus(settings, settings.path)
    written = write_corpus_report(settings.path)
    assert written == tmp_path / "docs-report.html"
    assert "Corpus docs" in Page(written.read_text(encoding="utf-8")).text
    assert verify_files(settings.path, read_manifest(settings.path, "documents")) == []


def test_damaged_folders_and_other_kinds_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    with (copy / "report.json").open("r+b") as file:
        file.write(b"[")
    with pytest.raises(RunError, match=r"report\.json is damaged: content differs"):
        corpus_page(copy)
    with pytest.raises(UserError, match="is not a corpus"):
        corpus_page(tmp_path)


words = st.lists(st.sampled_from(["a", "bb", " ", "\n", "<b>", "&", "\u00e9"]), max_size=12)


@settings(deadline=None)
@given(words.map("".join), words.map("".join))
def test_pieces_join_to_the_texts_and_equal_pieces_are_shared(left: str, right: str) -> None:
    pair = compare("", left, right)
    assert "".join(piece.text for piece in pair.left) == left
    assert "".join(piece.text for piece in pair.right) == right
    shared = [
        "".join(piece.text for piece in side if not piece.differs)
        for side in (pair.left, pair.right)
    ]
    assert shared[0] == shared[1]
    if left == right:
        assert shared[0] == left


def test_a_heat_map_is_the_same_every_time_and_writes_its_values() -> None:
    drawn = [heat_map("t", ["a", "b"], ["a", "b"], [[0, 1234], [5, 0]], "x", "y", log=True).svg] * 2
    assert drawn[0] == drawn[1]
    assert "1,234" in drawn[0]
