"""Files that feldspar reads are found, and others are told, with what to do about them."""

import json
import re
from pathlib import Path

import pytest

from feldspar.begin.formats import search
from feldspar.core.errors import UserError


def write(folder: Path, **files: str | bytes) -> None:
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_a_mixed_folder_gives_a_finding_for_each_format(tmp_path: Path) -> None:
    for name in ("a.md", "deep/b.txt", "c.py", "d.js", "e.jsonl", "f.wet.gz", "g.csv", "LICENSE"):
        write(tmp_path, **{name: "x"})
    for name in ("node_modules/x.js", ".venv/lib/y.py", ".git/z.txt"):
        write(tmp_path, **{name: "x"})
    found = search([tmp_path])
    assert {each.format: [name for name, _ in each.files] for each in found.findings} == {
        "text": ["a.md", "deep/b.txt"],
        "code": ["c.py", "d.js"],
        "jsonl": ["e.jsonl"],
        "warc": ["f.wet.gz"],
    }
    by_format = {each.format: each for each in found.findings}
    assert by_format["text"].suffixes == (".md", ".txt")
    assert by_format["text"].exclude == ("**/.git/**",)
    assert by_format["code"].exclude == ("**/.venv/**", "**/node_modules/**")
    assert found.passed_over == {".csv": 1, "LICENSE": 1}


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("README", "plain words", "text"),
        ("records.ndjson", '{"text": "a"}\n{"text": "b"}\n', "jsonl"),
        ("records.json", '{"text": "a"}\n{"text": "b"}\n', "jsonl"),
        ("notes.weird", "\u00e4\u00f6\u00fc", "text"),
        ("b.jsonl.zst", "anything", "jsonl"),
    ],
)
def test_a_file_that_is_named_is_taken_by_its_content(
    name: str, content: str, kind: str, tmp_path: Path
) -> None:
    write(tmp_path, **{name: content})
    (finding,) = search([tmp_path / name]).findings
    assert (finding.format, [name for name, _ in finding.files]) == (kind, [name])


def test_files_of_another_split_are_left_out(tmp_path: Path) -> None:
    record = json.dumps({"text": "word " * 50}) + "\n"
    write(tmp_path, **{"train-0.jsonl": record, "train-1.jsonl": record, "test-0.jsonl": record})
    (finding,) = search([tmp_path]).findings
    assert finding.format == "huggingface"
    assert [name for name, _ in finding.files] == ["train-0.jsonl", "train-1.jsonl"]


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        ({}, ".", "there is no text to read"),
        ({}, "absent", "absent does not exist"),
        ({"a.csv": "a,b"}, ".", "found: 1 .csv(.|\n)*turn it into Parquet"),
        ({"a.pdf": "%PDF"}, "a.pdf", "does not read(.|\n)*pdftotext"),
        ({"a.bin": b"\x00\x01\x02"}, "a.bin", "is no text"),
        ({"a": ""}, "a", "is empty"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(
    files: dict[str, str | bytes], given: str, message: str, tmp_path: Path
) -> None:
    write(tmp_path, **files)
    with pytest.raises(UserError) as error:
        search([tmp_path / given])
    assert re.search(message, str(error.value))


def test_a_path_in_another_is_refused_and_one_given_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, **{"a/b.txt": "words"})
    assert len(search([tmp_path / "a", tmp_path / "a" / ".." / "a"]).findings) == 1
    with pytest.raises(UserError, match="lies in"):
        search([tmp_path, tmp_path / "a" / "b.txt"])
