"""JSON mappings on disk: read, or refused by the file's name."""

from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.core.json_files import read_json


def test_a_mapping_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, "é"]}', encoding="utf-8")
    assert read_json(path) == {"a": [1, "é"]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not JSON"),
        (b'{"a": ', "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "no JSON mapping"),
    ],
)
def test_anything_else_is_refused_by_name(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=words) as caught:
        read_json(path)
    assert str(path) in caught.value.what
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "b.json")
