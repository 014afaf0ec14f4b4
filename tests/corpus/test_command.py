"""The commands: help without heavy imports, tables and JSON, exit codes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from pyarrow import parquet
from typer.testing import CliRunner, Result

from feldspar.cli import corpus
from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.recipe.load import load_data_recipe, load_recipe
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


def test_dedup_takes_the_fields_and_the_source_of_foreign_files(
    jsonl: Jsonl, tmp_path: Path
) -> None:
    records = [{"page": {"body": prose(i)}, "key": f"k{i}"} for i in range(3)]
    path = jsonl("crawl 7.jsonl", [*records, {"page": {"body": prose(3)}, "source": "named"}])
    table = tmp_path / "table.v2.parquet"
    parquet.write_table(pa.Table.from_pylist([{"page": {"body": prose(4)}}]), table)
    options = ["--text-field", "page.body", "--id-field", "key", "--workers", 1, "--json"]

    def kept(*more: object) -> dict[str, set[str]]:
        out = tmp_path / f"out{len(more)}"
        result = run("dedup", path, table, "--out", out, *options, *more)
        assert result.exception is None, result.exception
        report = json.loads(result.stdout)
        rows = parquet.read_table(out / "kept").to_pylist()
        assert {row["text"] for row in rows} == {prose(i) for i in range(5)}
        found: dict[str, set[str]] = {name: set() for name in report["sources"]}
        for row in rows:
            found[row["source"]].add(row["id"])
        return found

    assert kept() == {
        "crawl-7": {"k0", "k1", "k2"},
        "named": {"named/crawl 7.jsonl:4"},
        "table.v2": {"table.v2/table.v2.parquet:1"},
    }
    assert set(kept("--source", "mine")) == {"mine"}
    other = run("dedup", path, "--out", tmp_path / "x", "--workers", 1)
    assert isinstance(other.exception, UserError)
    assert "no field 'text'" in other.exception.what and "--text-field" in str(other.exception)
    other = run("dedup", path, "--out", tmp_path / "x", "--source", "../x", *options)
    assert "--source" in str(other.exception)
    assert run("dedup", path, table, "--out", tmp_path / "out0", *options).exception is None
    other = run("dedup", path, table, "--out", tmp_path / "out0", *options, "--source", "mine")
    assert isinstance(other.exception, UserError) and "other settings" in other.exception.what


def test_a_file_of_short_documents_does_not_end_the_work(jsonl: Jsonl, tmp_path: Path) -> None:
    paths = jsonl("a.jsonl", [{"text": prose(1)}]), jsonl("b.jsonl", [{"text": "short"}])
    result = run("dedup", *paths, "--out", tmp_path / "out", "--workers", 1, "--json")
    removed = {
        name: counts["removed"]["short"]["documents"]
        for name, counts in json.loads(result.stdout)["sources"].items()
    }
    assert removed == {"a": 0, "b": 1}
    other = run("dedup", paths[1], paths[1], "--out", tmp_path / "other", "--workers", 1)
    assert "source b has no document left" in str(other.exception)


def test_bad_records_of_files_that_mix_sources_are_counted(jsonl: Jsonl, tmp_path: Path) -> None:
    path = jsonl("mixed.jsonl", [{"source": "a", "text": prose(1)}, {"source": "b", "text": 1}])
    out = tmp_path / "out"
    result = run("dedup", path, "--out", out, "--workers", 1, "--skip-bad", 1)
    assert "1 bad records were left out" in result.stdout
    assert json.loads((out / "report.json").read_text())["bad_records"] == {"mixed": 1}


RECIPE = """
schema_version: 1
name: mine
corpus:
  path: documents
  sources: {mine: {reader: jsonl, path: mine.jsonl}}
  decontaminate: {sets: {exam: {path: exam.txt}}}
"""


def test_documents_and_tokens_need_no_model(jsonl: Jsonl, tmp_path: Path) -> None:
    exam = prose(900, 20)
    texts = [*map(prose, range(30)), exam + prose(99), "short"]
    jsonl("mine.jsonl", [{"text": text} for text in texts])
    (tmp_path / "exam.txt").write_text(exam)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    result = run("build", tmp_path / "mine.yaml", "--workers", 1)
    assert result.exception is None, result.exception
    table = [line.split() for line in result.stdout.splitlines()]
    assert table[0] == [
        "source",
        "read",
        "overlap",
        "short",
        "exact",
        "near",
        "kept",
        "kept",
        "bytes",
    ]
    assert table[1][:7] == ["mine", "32", "1", "1", "0", "0", "30"]
    lines = [line for line in result.stdout.splitlines() if line.startswith("removed, ")]
    assert [line.split(":")[0] for line in lines] == [
        f"removed, {reason}" for reason in ("overlap", "short", "exact", "near")
    ]
    assert lines[0].endswith("share a run of words with an evaluation set: exam 1")
    with pytest.raises(UserError, match="no model and no phases"):
        load_recipe(str(tmp_path / "mine.yaml"))
    more = ["tokenizer={type: train_bpe, vocab_size: 300}", f"shards.path={tmp_path / 'shards'}"]
    assert run_with(["tokens", "build", str(tmp_path / "mine.yaml"), *more]) == 0
    assert (tmp_path / "shards" / "manifest.json").is_file()
    assert run_with(["tokens", "build", str(tmp_path / "mine.yaml")]) == 2
    assert run_with(["config", "show", str(tmp_path / "mine.yaml")]) == 0


def test_a_misspelt_recipe_of_documents_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE.replace("decontaminate", "decontamination"))
    with pytest.raises(UserError, match=r"corpus\.decontamination"):
        load_data_recipe(str(path))
    path.write_text(RECIPE.replace("schema_version: 1", ""))
    with pytest.raises(UserError, match="schema_version"):
        load_data_recipe(str(path))


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
        (["--keep", "source_priority"], "priority: give it with keep"),
        (["--priority", "a,b"], "priority: give it with keep"),
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
