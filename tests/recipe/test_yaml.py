"""Strict YAML: YAML 1.2 scalars, nothing clever, and a line for every key."""

from pathlib import Path
from typing import Any

import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.yaml import SIZE_LIMIT_BYTES, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("3e-4", 3e-4),
        ("1e3", 1000.0),
        ("010", 10),
        ("0x1F", 31),
        ("1_000", 1000),
        ("true", True),
        ("null", None),
        ("~", None),
        ("12:30:45", "12:30:45"),
        ("'010'", "010"),
        ("[1, 2.5, a]", [1, 2.5, "a"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("{1.3B: 1, 2: x, true: y}", {"1.3B": 1, "2": "x", "true": "y"}),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    found, _ = parse_yaml(f"key: {text}", "file")
    assert found == {"key": value}
    assert type(found["key"]) is type(value)


@pytest.mark.parametrize(
    ("text", "part", "line"),
    [
        ("a: 1\nb: &x 1", "anchors are not allowed", 2),
        ("a: 1\nb: *x", "aliass? are not allowed", 2),
        ("a: !!str 1", "tags are not allowed", 1),
        ("a: !python/object:os.system x", "tags are not allowed", 1),
        ("a: 1\nb: 2\na: 3", "duplicate key", 3),
        ("1: x\n'1': y", "given twice", 2),
        ("a: 1\nb: .nan", "b is not a finite number", 2),
        ("a: [1, -.inf]", "not a finite number", 1),
        ("a: 1e400", "not a finite number", 1),
        ("a:\n\tb: 1", "found character", 2),
        ("a: [1, 2", "expected", None),
        ("a: 1\n---\nb: 1", "another document", 2),
        ("a: 2024-01-01", "a value must be text", 1),
        ("a: 2024-99-99", "malformed", None),
        ("a: " + "9" * 5000, "malformed", None),
        ("<<: {a: 1}", "merge keys are not", None),
        ("b: 1\n<<: {a: 1}", "merge keys are not", None),
        ("? [a]\n: 1", "plain words", None),
        ("~: 1", "plain words", None),
        ("a: \x07", "malformed", None),
        ('\nb: {c: "x\\0y"}', "b.c: text must not", 2),
        ("[" * 3000, "nested too deeply", None),
    ],
)
def test_what_is_refused(text: str, part: str, line: int | None) -> None:
    with pytest.raises(UserError, match=part) as caught:
        parse_yaml(text, "file")
    if line is not None:
        assert caught.value.where == f"file:{line}"


def test_lines() -> None:
    text = "# comment\na: 1\n\nb:\n  - x\n  - {c: 2,\n     d: 3}\n"
    _, lines = parse_yaml(text, "file")
    assert lines == {
        ("a",): 2,
        ("b",): 4,
        ("b", 0): 5,
        ("b", 1): 6,
        ("b", 1, "c"): 6,
        ("b", 1, "d"): 7,
    }


def test_a_byte_order_mark_is_harmless(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_yaml(path)[0] == {"a": 1, "b": 2}


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    with pytest.raises(UserError, match="does not exist"):
        read_yaml(path)
    with pytest.raises(UserError, match="is a folder"):
        read_yaml(tmp_path)
    path.write_bytes(b"a: \xff")
    with pytest.raises(UserError, match="not UTF-8") as caught:
        read_yaml(path)
    assert caught.value.where == "byte 3"
    path.write_bytes(b"a" * (SIZE_LIMIT_BYTES + 1))
    with pytest.raises(UserError, match="larger") as caught:
        read_yaml(path)
    assert caught.value.allowed == "at most 1 MiB"
