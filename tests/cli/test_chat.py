"""``feldspar chat``: answers on standard output, one for each line of input."""

import io
from pathlib import Path

import pytest

import feldspar
from feldspar.cli.main import run_with
from tests.evaluate.chat_model import write_chat_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("chat") / "model"
    write_chat_model(found)
    return found


def chat(monkeypatch: pytest.MonkeyPatch, text: bytes, *words: str) -> int:
    stream = io.TextIOWrapper(io.BytesIO(text), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stream)
    return run_with(["chat", *words])


@pytest.mark.parametrize("end", ["", "/exit\nnever read\n"])
def test_each_line_is_answered(
    end: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(folder), "--system", "Be brief.", "--max-new-tokens", "7", "--device", "cpu"]
    sampling = ["--temperature", "0.9", "--top-k", "50", "--top-p", "0.9", "--seed", "4"]
    assert chat(monkeypatch, f"Where?\n\n  \r\nWho?\r\n{end}".encode(), *words, *sampling) == 0
    conversation = feldspar.open_model(folder, device="cpu").converse(
        "Be brief.", max_new_tokens=7, temperature=0.9, top_k=50, top_p=0.9, seed=4
    )
    answers = ["".join(conversation.ask(text)) + "\n" for text in ("Where?", "Who?")]
    assert capsys.readouterr().out == "".join(answers)


def test_bad_input_is_one_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(monkeypatch, b"\xff\n", str(folder)) == 2
    assert "the message is not UTF-8" in capsys.readouterr().err
    assert chat(monkeypatch, b"a" * 999, str(folder)) == 2
    assert "fills the model's context" in capsys.readouterr().err
    assert chat(monkeypatch, b"", str(folder), "--top-p", "2") == 2
    assert "top_p must be" in capsys.readouterr().err
