"""``feldspar tokenizer`` and ``feldspar tokens`` on a small corpus."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from feldspar.cli import tokenizer as tokenizer_command
from feldspar.cli import tokens as tokens_command
from feldspar.cli import trace as trace_command
from feldspar.cli.trace import parts
from feldspar.core.errors import RunError, UserError
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    tokenizer_command.register(app)
    tokens_command.register(app)
    trace_command.register(app)
    return app


def run(app: typer.Typer, *arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("tokenizer", "train"),
        ("tokenizer", "report"),
        ("tokens", "build"),
        ("tokens", "show"),
        ("tokens", "compare"),
    ],
)
def test_help_has_an_example(app: typer.Typer, command: tuple[str, str]) -> None:
    assert f"Example: feldspar {' '.join(command)}" in " ".join(
        run(app, *command, "--help").split()
    )


def test_show(app: typer.Typer, shards: ShardSet) -> None:
    told = run(app, "tokens", "show", shards.path)
    assert "<|endoftext|>" in told and "validation" in told
    assert f"{shards.tokens('train', 'prose'):,}" in told
    assert "2 documents without text" in told
    report = json.loads(run(app, "tokens", "show", shards.path, "--json"))
    assert report["digest"] == shards.digest
    assert report["splits"]["train"]["code"]["tokens"] == shards.tokens("train", "code")


def test_trace_shows_every_part(app: typer.Typer, shards: ShardSet) -> None:
    told = run(app, "trace", shards.path)
    assert "train       prose" in told and f"{shards.tokens('train', 'prose'):,} tokens" in told
    kept = {"splits": {"train": {"documents": 2, "bytes": 1000}}}
    assert parts({"by_source": {"a": kept}}) == [("train", "a", "2", "1,000 bytes")]
    assert parts({"sources": ["a"]}) == []


def test_show_finds_damage(app: typer.Typer, shards: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        run(app, "tokens", "show", tmp_path / "none")
    copy = shutil.copytree(shards.path, tmp_path / "copy")
    (copy / "train/code/00000.tokens").write_bytes(b"ab")
    with pytest.raises(RunError, match=r"code/00000\.tokens"):
        run(app, "tokens", "show", copy)


def test_train_from_documents_and_report(app: typer.Typer, documents: Path, tmp_path: Path) -> None:
    output = tmp_path / "tokenizer"
    given = ("--documents", documents, "--vocab-size", 290, "--out", output)
    told = json.loads(run(app, "tokenizer", "train", *given, "--json"))
    loaded = TextTokenizer.load(output)
    assert (told["vocab_size"], told["digest"]) == (290, loaded.digest)
    report = run(app, "tokenizer", "report", output, "--documents", documents)
    assert "prose" in report and "code" in report
    counts = json.loads(run(app, "tokenizer", "report", output, "--documents", documents, "--json"))
    assert counts["prose"]["documents"] == 300
    assert counts["prose"]["bytes_per_token"] > 1
    with pytest.raises(UserError, match="exists already"):
        run(app, "tokenizer", "train", *given)


def test_compare(app: typer.Typer, shards: ShardSet) -> None:
    told = json.loads(run(app, "tokens", "compare", shards.path, "--alpha", 0.5, "--json"))
    assert (told["alpha"], told["sources"]) == (0.5, shards.sources())
    everything = told["groups"][0]
    assert (everything["group"], everything["tokens"]) == ("all", shards.vocab_size)
    assert everything["divergence"][0][0] == everything["divergence"][1][1] == 0
    assert everything["divergence"][0][1] > 0
    assert everything["cosine"][0][1] == everything["cosine"][1][0] < 1
    table = run(app, "tokens", "compare", shards.path)
    assert "KL(row || column) in nats, alpha 1" in table
    with pytest.raises(UserError, match="fewer than two"):
        run(app, "tokens", "compare", shards.path, "--split", "absent")


def test_build_from_a_recipe(app: typer.Typer, documents: Path, tmp_path: Path) -> None:
    path = tmp_path / "shards"
    given = [
        "quickstart",
        f"corpus.path={documents}",
        f"shards.path={path}",
        "tokenizer.vocab_size=300",
    ]
    told = json.loads(run(app, "tokens", "build", *given, "--workers", 1, "--json"))
    assert (told["up_to_date"], told["vocab_size"]) == (False, 300)
    assert told["digest"] == ShardSet.open(path).digest
    assert told["splits"]["train"]["prose"]["documents"] == 300
    assert "prose" in run(app, "tokens", "build", *given)
    with pytest.raises(UserError, match="other settings"):
        run(app, "tokens", "build", *given, "seed=6")
    assert "prose" in run(app, "tokens", "build", *given, "seed=6", "--overwrite")


def test_train_needs_something_to_train_on(app: typer.Typer) -> None:
    with pytest.raises(UserError, match="give a recipe, or both"):
        run(app, "tokenizer", "train")


def test_the_commands_load_no_torch() -> None:
    script = (
        "import sys, feldspar.cli.tokens, feldspar.cli.tokenizer\n"
        "import feldspar.tokens.shards.build_shards, feldspar.tokens.sequences.phase_sequences\n"
        "import feldspar.tokens.sequences.resolve\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
