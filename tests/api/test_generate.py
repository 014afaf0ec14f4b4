"""``feldspar generate``: only the text on standard output, equal to that of ``transformers``."""

import json
from pathlib import Path

import pytest
import torch

import feldspar
from feldspar.cli.main import run_with

PROMPT = "The old house"


def test_the_text_of_transformers_alone_is_on_standard_output(
    run: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(exported)
    theirs = AutoModelForCausalLM.from_pretrained(exported).eval()
    ids = tokenizer(PROMPT, return_tensors="pt")
    with torch.no_grad():
        written = theirs.generate(**ids, max_new_tokens=30, do_sample=False)
    expected = tokenizer.decode(written[0], skip_special_tokens=True)
    for model in (run, exported):
        words = ["generate", str(model), "--prompt", PROMPT, "--max-new-tokens", "30"]
        assert run_with(words) == 0
        assert capsys.readouterr().out == expected + "\n"


def test_settings_reach_the_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--temperature", "1.2", "--top-k", "30", "--top-p", "0.9", "--seed", "3"]
    words = ["generate", str(run), "--prompt", PROMPT, "--max-new-tokens", "20", *options, "--json"]
    assert run_with([*words, "--device", "cpu", "--checkpoint", "1024"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = feldspar.open_model(run).generate(
        PROMPT, 20, temperature=1.2, top_k=30, top_p=0.9, seed=3
    )
    assert found["text"] == expected == PROMPT + found["continuation"]
    assert found["new_tokens"] == 20 or found["ended"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--top-p", "1.5"], "top_p must be above 0 and at most 1"),
        (["--max-new-tokens", "999"], "exceed the learned table of 64 positions"),
        (["--device", "toaster"], "no such device"),
        (["--checkpoint", "7"], "no checkpoint at 7"),
    ],
)
def test_bad_settings_are_refused_before_any_text(
    words: list[str], told: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(["generate", str(run), "--prompt", PROMPT, *words]) == 2
    shown = capsys.readouterr()
    assert told in shown.err and shown.out == ""
