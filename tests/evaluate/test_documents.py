"""Files as documents, and files that are none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.evaluate import TextModel, text_files, text_losses


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
