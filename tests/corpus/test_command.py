"""The commands: help without heavy imports, tables and JSON, exit codes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from pyarrow import parquet
from typer.testing import CliRunner, Result

from feldspar.cli import corpus
from feldspar.core.errors import UserError
from tests.corpus.conftest import prose

Jsonl = Callable[[str, list[dict[str, Any]]], Path]


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    corpus.register(app)
    return CliRunner().invoke(app, ["corpus", *map(str, arguments)])


@pytest.mark.parametrize("verb", ["build", "dedup", "report"])
def test_help_has_an_example(verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert f"feldspar corpus {verb} " in " ".join(result.stdout.split())


def test_importing_the_command_loads_nothing_heavy() -> None:
    code = "import sys, feldspar.cli.corpus as c, feldspar.corpus; print(sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert not {"torch", "pyarrow", "ftfy", "zstandard"} & set(eval(result.stdout))


def test_dedup_prints_a_table_or_the_report(jsonl: Jsonl, tmp_path: Path) -> None:
    records = [{"source": "s", "text": prose(i % 3)} for i in range(5)]
    path = jsonl("x.jsonl", records)
    out = tmp_path / "out"
    result = run("dedup", path, "--out", out, "--workers", 1, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["sources"]["s"]["kept"]["documents"] == 3
    assert report == json.loads((out / "report.json").read_text())
    table = run("dedup", path, "--out", out, "--workers", 1).stdout.splitlines()
    assert table[1].split()[:6] == ["s", "5", "0", "2", "0", "3"]
    other = run("dedup", path, "--out", out, "--workers", 1, "--scope", "local")
    assert isinstance(other.exception, UserError)
    assert "other settings" in other.exception.what


def test_the_published_pipeline_can_be_verified_and_ours_left_unchecked(
    jsonl: Jsonl, tmp_path: Path
) -> None:
    words = prose(1, 90).split()
    records = [
        {"source": "s", "text": " ".join(words), "score": 1},
        {"source": "s", "text": " ".join(words[:-1]), "score": 2.5},
    ]
    path = jsonl("x.jsonl", records)
    for number, options in enumerate(
        (
            ["--preset", "slimpajama", "--verify"],
            ["--no-verify"],
            ["--keep", "field:score", "--cluster", "representative"],
        )
    ):
        out = tmp_path / str(number)
        result = run("dedup", path, "--out", out, "--workers", 1, "--json", *options)
        assert result.exception is None
        report = json.loads(result.stdout)
        assert report["sources"]["s"]["removed"]["near"]["documents"] == 1
        edges = parquet.read_table(out / "edges.parquet").to_pylist()
        assert (edges[0]["jaccard"] is None) == (options == ["--no-verify"])
        kept = parquet.read_table(out / "kept").column("text").to_pylist()
        assert kept == [records[1 if "field:score" in options else 0]["text"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "1.5"], "--threshold"),
        (["--threshold", "0"], "--threshold"),
        (["--threshold", "nan"], "--threshold"),
        (["--keep", "source_priority"], "priority: needed with keep"),
        (["--priority", "a,b"], "priority: needed with keep"),
        (["--keep", "best"], "--keep"),
        (["--keep", "field:"], "--keep"),
        (["--keep", "field:score"], "keep: no document has the field 'score'"),
        (["--cluster", "representative", "--no-verify"], "representative needs verify"),
    ],
)
def test_options_that_do_not_fit(
    jsonl: Jsonl, tmp_path: Path, options: list[str], message: str
) -> None:
    path = jsonl("x.jsonl", [{"source": "s", "text": prose(1)}])
    result = run("dedup", path, "--out", tmp_path / "out", *options)
    assert isinstance(result.exception, UserError)
    assert message in result.exception.what


def test_build_takes_a_recipe_and_overrides(jsonl: Jsonl, tmp_path: Path) -> None:
    path = jsonl("x.jsonl", [{"text": prose(i)} for i in range(20)])
    sources = f"corpus.sources={{s: {{path: {path}, reader: jsonl}}}}"
    out = tmp_path / "documents"
    result = run(
        *("build", "quickstart", sources, "corpus.clean.short=100"),
        *("--out", out, "--workers", 1, "--json"),
    )
    assert result.exception is None
    report = json.loads(result.stdout)
    assert report["settings"]["clean"]["short"] == 100
    assert (out / "train" / "s" / "part-00000.parquet").is_file()
