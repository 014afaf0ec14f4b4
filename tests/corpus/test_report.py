"""Lengths and excerpts of the report: that counts add up, and that excerpts show a difference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.corpus.examples import EXCERPT_CHARACTERS, LEAD_CHARACTERS, excerpts
from feldspar.corpus.files import deduplicate_files
from feldspar.corpus.report import report_from_json
from feldspar.recipe.sections.corpus import DeduplicateSettings
from tests.corpus.conftest import prose

Jsonl = Callable[[str, list[dict[str, Any]]], Path]


@given(st.text(max_size=40), st.text("ab", max_size=8), st.text("ab", max_size=8))
def test_excerpts_begin_before_the_first_difference(common: str, a: str, b: str) -> None:
    first, second = common * 60 + a, common * 60 + b
    start, left, right = excerpts(first, second)
    assert first[start : start + EXCERPT_CHARACTERS] == left
    assert second[start : start + EXCERPT_CHARACTERS] == right
    assert (left == right) == (first == second)
    if start:
        assert left[:LEAD_CHARACTERS] == right[:LEAD_CHARACTERS]
        assert left[: LEAD_CHARACTERS + 1] != right[: LEAD_CHARACTERS + 1]


@pytest.mark.parametrize(("size", "floor"), [(1023, "512"), (1024, "1024"), (1025, "1024")])
def test_lengths_count_bytes_by_powers_of_two(
    jsonl: Jsonl, tmp_path: Path, size: int, floor: str
) -> None:
    text = prose(1, 200)[: size - 2] + "\u00e9"  # two bytes
    records = [{"source": "s", "text": text}, {"source": "s", "text": text.upper()}]
    report = deduplicate_files(
        [jsonl("x.jsonl", [*records, {"source": "s", "text": ""}])],
        tmp_path / "out",
        DeduplicateSettings(),
    )
    assert report.lengths == {"s": {"read": {"0": 1, floor: 2}, "kept": {floor: 1}}}
    (example,) = report.examples
    assert example.excerpt_a == text and example.excerpt_b == text.upper()
    assert (
        report_from_json((tmp_path / "out" / "report.json").read_text()).lengths == report.lengths
    )
