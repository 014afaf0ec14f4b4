"""JSON files: mappings are read or refused by the file's name; what is written is strict JSON."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.core.json_files import json_text, json_values, read_json, write_json


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


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES, st.booleans())
def test_what_is_written_is_strict_json_and_comes_back(value: object, ascii_only: bool) -> None:
    text = json_text(value, ascii_only=ascii_only)
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read == json_values(value)
    assert text.isascii() or not ascii_only


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_become_null(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "a.json", {"a": value, 1: [(1.5, value)]})
    assert read_json(tmp_path / "a.json") == {"a": None, "1": [[1.5, None]]}
