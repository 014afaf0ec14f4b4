"""Files as documents, and files that are none."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers

from feldspar.core.errors import UserError
from feldspar.evaluate.loss.documents import text_files, text_losses
from feldspar.evaluate.text_model import TextModel
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.evaluate.conftest import END


def test_a_file_is_a_document(make_model: Callable[..., TextModel], tmp_path: Path) -> None:
    model = make_model()
    texts = ["first\r\nline\n", "naïve 東京"]
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path, text in zip(files, texts, strict=True):
        path.write_bytes(text.encode())
    losses = text_files(model, files)
    assert losses == text_losses(model, texts)
    assert [loss.bytes for loss in losses] == [len(text.encode()) for text in texts]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "does not exist"),
        ("empty.txt", b"", "is empty"),
        ("blank.txt", b" \n\t\n", "holds white space only"),
        ("latin.txt", b"caf\xe9 au lait", "not UTF-8: byte 3"),
        (".", None, "is a folder"),
    ],
)
def test_other_files_are_refused_in_one_line(
    make_model: Callable[..., TextModel],
    tmp_path: Path,
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        text_files(make_model(), [path])
    assert str(path) in caught.value.what and "\n" not in caught.value.what


def lossy(model: TextModel) -> TextModel:
    """The model with a tokenizer that lower-cases."""
    inner = Tokenizer.from_str(model.tokenizer.to_json())
    inner.normalizer = normalizers.Lowercase()
    return replace(model, tokenizer=TextTokenizer(inner, model.tokenizer.end_of_document))


def test_text_that_does_not_come_back_has_no_figure(
    make_model: Callable[..., TextModel], tmp_path: Path
) -> None:
    model, path = lossy(make_model()), tmp_path / "Text.txt"
    path.write_text("lower case only\n")
    whole = text_files(model, [path])[0]
    assert whole.bytes == 16 and "changed_bytes" not in whole.as_dict()
    path.write_text("lower case only, but for One letter.\n" * 50 + "lower case only\n" * 6000)
    assert text_files(model, [path])[0].as_dict()["changed_bytes"] == 50
    path.write_text("lower case only,\nbut ONE\n")
    with pytest.raises(UserError, match=r"restore 3 of the 25 bytes of .*Text.txt") as caught:
        text_files(model, [path])
    assert caught.value.where == "line 2, byte 21"


def test_dropped_control_characters_have_no_figure(
    make_model: Callable[..., TextModel], tmp_path: Path
) -> None:
    """As with SmolLM2, whose vocabulary lacks some of them."""
    model, path = make_model(), tmp_path / "Text.txt"
    parts = json.loads(model.tokenizer.to_json())
    del parts["model"]["vocab"]["\u0104"]  # the byte 0x04
    tokenizer = TextTokenizer(Tokenizer.from_str(json.dumps(parts)), END)
    path.write_text("some text\x04 and more\n")
    with pytest.raises(UserError, match=r"restore 1 of the 20 bytes of .*Text.txt") as caught:
        text_files(replace(model, tokenizer=tokenizer), [path])
    assert str(caught.value.found).startswith(r"'\x04 and more\n' became ' and more")
