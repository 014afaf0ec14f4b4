"""The commands of a tutorial, one after the other in an empty folder, with few steps."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from tests.examples.collect import FENCED, IN_BLOCK

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "teach-a-language.md"
STEPS = [f"phases.{index}.length=1 steps" for index in (0, 1)]
SHORTER: Mapping[str, list[str]] = {
    "train": [*STEPS, "evaluation.validation_sequences=1"],
    "evaluate": ["--limit", "256"],
    "reproduce": ["--dry-run"],
}
"""Words that are added to a command."""


def commands() -> Iterator[list[str]]:
    for block in FENCED.findall(PAGE.read_text(encoding="utf-8")):
        for command in IN_BLOCK.findall(block):
            yield shlex.split(command)[1:]


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_wheel")
def test_a_model_learns_a_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands():
        code = run_with(["--quiet", *words, *SHORTER.get(words[0], [])])
        printed = capfd.readouterr()
        assert code == 0, f"{shlex.join(words)}\n{printed.out}\n{printed.err}"
        if words[0] == "generate":
            assert printed.out.startswith(words[words.index("--prompt") + 1])
    for made in ("adapted/new_rows.jsonl", "ukrainian/tokenizer.json", "ukrainian.gguf"):
        assert (tmp_path / made).is_file()
