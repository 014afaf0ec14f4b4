"""Bad input through the command itself: one clear line, exit code 2, and nothing left behind."""

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from feldspar.cli.main import run_with
from tests.corpus.conftest import prose

GOOD = [{"source": "web", "text": prose(number)} for number in range(3)]


def lines(records: list[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def incompressible(records: int) -> bytes:
    return lines([{"source": "web", "text": os.urandom(400).hex()} for _ in range(records)])


FILES: dict[str, tuple[str, bytes, str]] = {
    "empty file": ("x.jsonl", b"", "x.jsonl is empty"),
    "only blank lines": ("x.jsonl", b"\n  \n", "the sources hold no document"),
    "invalid UTF-8": (
        "x.jsonl",
        b'{"source": "web", "text": "\xe9"}\n',
        "1 of 1 characters (100.00%) are not UTF-8, in 1 documents; the first is x.jsonl:1",
    ),
    "invalid JSON": ("x.jsonl", lines(GOOD) + b'{"text": ', "x.jsonl:4 is not valid JSON"),
    "deep JSON": (
        "x.jsonl",
        b'{"source": "web", "text": ' + b"[" * 90_000,
        "x.jsonl:1 is not valid JSON",
    ),
    "not an object": ("x.jsonl", b"[1, 2]\n", "x.jsonl:1 is not a JSON object"),
    "nested text": (
        "x.jsonl",
        lines([{"source": "web", "text": {"text": "a"}}]),
        "x.jsonl:1: field 'text' is not text",
    ),
    "text that is a number": (
        "x.jsonl",
        lines([{"source": "web", "text": 3}]),
        "x.jsonl:1: field 'text' is not text",
    ),
    "missing text": (
        "x.jsonl",
        lines([{"source": "web"}]),
        "x.jsonl:1: the record has no field 'text'",
    ),
    "null source": (
        "x.jsonl",
        lines([{"text": "a", "source": None}]),
        "x.jsonl:1: field 'source' is not text",
    ),
    "path-like source": (
        "x.jsonl",
        lines([{"source": "../x", "text": "a"}]),
        "'../x' cannot name a source",
    ),
    "unpaired surrogate": (
        "x.jsonl",
        b'{"source": "web", "text": "\\ud800"}\n',
        "source web: 1 of 1 characters (100.00%) are not UTF-8",
    ),
    "UTF-16": (
        "x.jsonl",
        lines(GOOD).decode().encode("utf-16"),
        "x.jsonl:1 is UTF-16 or UTF-32, not UTF-8",
    ),
    "id that is not UTF-8": (
        "x.jsonl",
        b'{"source": "web", "text": "a", "id": "\xe9"}\n',
        "x.jsonl:1: field 'id' is not UTF-8",
    ),
    "blank texts only": (
        "x.jsonl",
        lines([{"source": "web", "text": " \t "}, {"source": "web", "text": ""}]),
        "source web has no document left after cleaning: of 2 read, 2 have too few cleaned",
    ),
    "long line": (
        "x.jsonl",
        b'{"source": "web", "text": "' + b"x" * 100_000_000 + b'"}\n',
        "x.jsonl:1 is longer than 64 MiB",
    ),
    "truncated gzip": (
        "x.jsonl.gz",
        gzip.compress(incompressible(500))[:-30],
        "x.jsonl.gz is truncated or damaged",
    ),
    "garbled gzip": ("x.jsonl.gz", lines(GOOD), "x.jsonl.gz is truncated or damaged"),
    "truncated Zstandard": (
        "x.jsonl.zst",
        zstandard.compress(incompressible(500))[:-30],
        "x.jsonl.zst is truncated or damaged",
    ),
    "garbled Zstandard": ("x.jsonl.zst", lines(GOOD), "x.jsonl.zst is truncated or damaged"),
    "no Parquet": ("x.parquet", lines(GOOD), "x.parquet is not a whole Parquet file"),
    "another kind of file": ("x.csv", b"source,text\n", "x.csv is neither Parquet nor JSON lines"),
}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The error's first line, after exit code 2 and without a traceback."""
    assert run_with(["--quiet", "corpus", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[0]


@pytest.mark.parametrize("name", FILES)
def test_bad_files(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, content, message = FILES[name]
    (tmp_path / file).write_bytes(content)
    out = tmp_path / "out"
    assert message in refused(capsys, "dedup", tmp_path / file, "--out", out, "--engine", "serial")
    assert [each.name for each in tmp_path.iterdir()] == [file]


def test_a_table_without_the_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet.write_table(pyarrow.table({"source": ["a"]}), tmp_path / "x.parquet")
    error = refused(capsys, "dedup", tmp_path / "x.parquet", "--out", tmp_path / "out")
    assert "x.parquet has no column 'text'" in error


def test_bad_records_are_left_out_up_to_the_number_given_and_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{\n" + lines(GOOD) + b"[]\n" + lines([{"source": "web"}]))
    command = ["dedup", path, "--out", tmp_path / "out", "--engine", "serial", "--skip-bad"]
    assert "x.jsonl:6: the record has no field 'text'" in refused(capsys, *command, 2)
    assert run_with(["corpus", *map(str, command), "3"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert [place in line for place, line in zip((":1 ", ":5 ", ":6:"), told, strict=True)] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "verfied"], "verfied"),
        (["--engine", "spark"], "spark"),
        (["--engine", "serial", "--workers", "2"], "workers: the serial engine"),
        (["--workers", "-1"], "--workers"),
        (["--threshold", "0"], "--threshold"),
        (["--memory", "63MB"], "memory: at least 64MB"),
        (["--memory", "lots"], "--memory"),
        (["--scope", "world"], "world"),
        (["--skip-bad", "-1"], "--skip-bad"),
    ],
)
def test_bad_options(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines(GOOD))
    arguments = ["--quiet", "corpus", "dedup", str(path), "--out", str(tmp_path / "out"), *options]
    assert run_with(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert [each.name for each in tmp_path.iterdir()] == ["x.jsonl"]


def test_a_budget_that_cannot_hold_the_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"source": "a", "text": "b"}\n' * 220_000)
    options = ["--short", 0, "--memory", "64MB", "--engine", "serial"]
    error = refused(capsys, "dedup", path, "--out", tmp_path / "out", *options)
    assert "deduplicate.memory: 64MB is too small for 220,000 documents" in error
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("out", ["in", "in/out", "."])
def test_outputs_that_overlap_inputs(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jsonl").write_bytes(lines(GOOD))
    for options in ([], ["--overwrite"]):
        command = ["dedup", tmp_path / "in", "--out", tmp_path / out, *options]
        assert "overlap" in refused(capsys, *command)
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    command = ["dedup", tmp_path / "linked", "--out", tmp_path / out]
    assert "overlap" in refused(capsys, *command)
    source = f"corpus.sources={{web: {{reader: jsonl, path: {tmp_path / 'in'}}}}}"
    assert "overlap" in refused(capsys, "build", "quickstart", source, "--out", tmp_path / out)
    assert (tmp_path / "in" / "x.jsonl").read_bytes() == lines(GOOD)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    path, out = tmp_path / "x.jsonl", tmp_path / "out"
    path.write_bytes(incompressible(3000))
    command = [*("-m", "feldspar", "corpus", "dedup", str(path), "--out", str(out))]
    command = [sys.executable, *command, "--engine", "serial"]

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files)
    assert result.returncode == 3, result.stderr
    assert "no space left on the disk" in result.stderr
    assert not out.exists()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "x.jsonl"]
