"""Filters of a corpus: each against a naive rule, and counts by reason in every output."""

import json
import pkgutil
import sys
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feldspar.cli.corpus import tell_documents
from feldspar.core.errors import SetupError, UserError
from feldspar.core.manifest import read_manifest
from feldspar.corpus import filters
from feldspar.corpus.build import build_corpus
from feldspar.corpus.clean import cleaned, cleaned_texts
from feldspar.corpus.filtering import find_reasons, reasons_of
from feldspar.corpus.filters.language import _identifier
from feldspar.corpus.packed import PackedTexts
from feldspar.corpus.report import REASONS
from feldspar.recipe.load import load_data_recipe
from feldspar.recipe.sections.corpus import (
    Filter,
    LanguageFilter,
    MaxMeanLineLength,
    ScriptShare,
    ShortFilter,
)
from feldspar.report.corpus_report import corpus_page
from tests.corpus.conftest import corpus_settings, prose

Jsonl = Callable[[str, list[dict[str, Any]]], Path]
(MEMBERS, *_) = get_args(Filter)
SETTINGS = get_args(MEMBERS) or (MEMBERS,)
"""The settings class of each filter."""


NEEDED = {ScriptShare: {"script": "arabic"}, LanguageFilter: {"language": "uk"}}
"""Settings that have no default."""


def removed_by(
    texts: list[str], *settings: Filter, sources: list[str] | None = None
) -> list[str | None]:
    """Apply filters to texts; return the reason for each text, None where it is kept."""
    sources = sources or ["web"] * len(texts)
    packed = PackedTexts.of(text.encode() for text in texts)
    reasons = reasons_of(settings)
    found = find_reasons(packed, cleaned_texts(packed)[1], sources, settings).tolist()
    return [None if place < 0 else reasons[place] for place in found]


def test_each_filter_has_a_file_settings_and_reasons() -> None:
    examples = [settings(**NEEDED.get(settings, {})) for settings in SETTINGS]
    types = sorted(settings.type for settings in examples)
    assert sorted(module.name for module in pkgutil.iter_modules(filters.__path__)) == types
    assert len(SETTINGS) == len(set(types))
    for settings in examples:
        assert reasons_of([settings])
        assert set(reasons_of([settings])) <= set(REASONS)


@given(st.lists(st.text("aB. \n", max_size=8), max_size=6), st.integers(0, 8))
def test_short_counts_cleaned_characters(texts: list[str], limit: int) -> None:
    expected = ["short" if len(cleaned(text)) < limit else None for text in texts]
    assert removed_by(texts, ShortFilter(characters=limit)) == expected


@given(st.lists(st.text("a\u00e9 \n\r\u2028", max_size=12), max_size=6), st.integers(1, 6))
def test_mean_line_length_counts_code_points(texts: list[str], limit: int) -> None:
    def is_long(text: str) -> bool:
        lengths = [len(line) for line in text.splitlines()]
        return bool(lengths) and Fraction(sum(lengths), len(lengths)) > limit

    expected = ["max_mean_line_length" if is_long(text) else None for text in texts]
    assert removed_by(texts, MaxMeanLineLength(characters=limit)) == expected


@given(st.lists(st.text("aBяжé\u0301\u0416\u4e00 .7", max_size=9), max_size=6), st.integers(1, 10))
def test_script_share_counts_letters(texts: list[str], tenths: int) -> None:
    def is_foreign(text: str) -> bool:
        letters = [character for character in text if character.isalpha()]
        own = ["CYRILLIC" in unicodedata.name(letter) for letter in letters]
        return not letters or Fraction(sum(own), len(letters)) < Fraction(str(tenths / 10))

    expected = ["script_share" if is_foreign(text) else None for text in texts]
    assert removed_by(texts, ScriptShare(script="cyrillic", share=tenths / 10)) == expected


def test_scripts_together() -> None:
    settings = ScriptShare(script=("hiragana", "katakana", "han"), share=0.9)
    assert removed_by(["東京へ行くバス。", "東京 Tokyo", "12 !"], settings) == [
        None,
        "script_share",
        "script_share",
    ]
    with pytest.raises(UserError, match="did you mean 'cyrillic'"):
        removed_by(["a"], ScriptShare(script="cyrilic"))


LANGUAGES = {
    "uk": "Сьогодні вранці в місті випав перший сніг, і діти пішли до школи пішки.",
    "ru": "Сегодня утром в городе выпал первый снег, и дети пошли в школу пешком.",
    "en": "This morning the first snow fell in the town and the children walked to school.",
    "fr": "Ce matin la première neige est tombée en ville et les enfants sont allés à pied.",
}


@pytest.mark.parametrize("kept", [("uk",), ("ru", "uk"), ("fr",), ("de",)])
def test_language_keeps_the_named_ones(kept: tuple[str, ...]) -> None:
    pytest.importorskip("py3langid")
    texts = list(LANGUAGES.values())
    expected = [None if name in kept else "language" for name in LANGUAGES]
    for _ in range(2):
        assert removed_by(texts, LanguageFilter(language=kept)) == expected


def test_language_looks_at_the_middle_of_long_documents() -> None:
    pytest.importorskip("py3langid")
    text = "Home. Login. Search. " * 20 + LANGUAGES["uk"] * 80 + "Contact us. " * 20
    assert removed_by([text], LanguageFilter(language="uk", probability=0.9)) == [None]
    assert removed_by([text], LanguageFilter(language="en")) == ["language"]


def test_an_unknown_language_is_named() -> None:
    pytest.importorskip("py3langid")
    with pytest.raises(UserError, match="the language 'ua' is unknown"):
        removed_by(["a"], LanguageFilter(language="ua"))


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    _identifier.cache_clear()
    with pytest.raises(SetupError, match="py3langid is not installed"):
        removed_by(["a"], LanguageFilter(language="uk"))


def test_other_sources_are_not_looked_at(tmp_path: Path) -> None:
    filters = ScriptShare(script="cyrillic", sources="news")
    found = removed_by(["hello", "hello"], filters, sources=["news", "books"])
    assert found == ["script_share", None]
    sources = {"a": {"reader": "jsonl", "path": "a.jsonl"}}
    with pytest.raises(ValidationError, match=r"filters\.0\.sources: there is no source 'news'"):
        corpus_settings(tmp_path, sources, filters=[filters.model_dump()])


def test_the_first_filter_that_gives_a_reason_decides() -> None:
    settings = ShortFilter(characters=300), MaxMeanLineLength()
    texts = ["x" * 101, "x" * 301, "x\n" * 300]
    assert removed_by(texts, *settings) == ["short", "max_mean_line_length", None]


def test_without_filters_all_is_kept() -> None:
    texts = PackedTexts.of([b"", b"a"])
    assert np.array_equal(find_reasons(texts, np.array([0, 1]), ["a", "a"], []), [-1, -1])


def test_filters_are_listed_after_the_short_one(jsonl: Jsonl, tmp_path: Path) -> None:
    path = jsonl("a.jsonl", [{"text": prose(i, 20 + i)} for i in range(20)] + [{"text": "x"}])
    sources = {"a": {"reader": "jsonl", "path": str(path)}}
    settings = corpus_settings(
        tmp_path / "out",
        sources,
        clean={"short": 2},
        filters=[{"type": "short", "characters": len(prose(0, 25))}],
    )
    report = build_corpus(settings, settings.path)
    assert {key: each.documents for key, each in report.sources["a"].removed.items()} == {
        "short": 6,
        "exact": 0,
        "near": 0,
    }
    assert report.settings["filters"] == [{"type": "short", "characters": len(prose(0, 25))}]
    with pytest.raises(UserError, match="other settings") as caught:
        build_corpus(settings.model_copy(update={"filters": ()}), settings.path)
    assert "filters: " in str(caught.value)


def test_every_output_counts_by_reason(
    jsonl: Jsonl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of copies of one text none survives where the filter removes all of them."""
    texts = [prose(i).replace(" ", "\n") for i in range(20)] + [prose(99), prose(99), "x"]
    path = jsonl("a.jsonl", [{"text": text} for text in texts])
    settings = corpus_settings(
        tmp_path / "out",
        {"a": {"reader": "jsonl", "path": str(path)}},
        filters=["max_mean_line_length"],
    )
    expected = {"short": 1, "max_mean_line_length": 2, "exact": 0, "near": 0}
    tell_documents(build_corpus(settings, settings.path))
    header, row, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["source", "read", *expected, "kept", "kept", "bytes"]
    assert [int(cell) for cell in row[1:-1]] == [23, *expected.values(), 20]
    assert ["removed,", "max_mean_line_length:", "2", "documents"] in [each[:4] for each in lines]
    found = json.loads((settings.path / "report.json").read_text())["sources"]["a"]["removed"]
    assert {reason: amount["documents"] for reason, amount in found.items()} == expected
    counts = read_manifest(settings.path).counts["by_source"]["a"]["removed"]
    assert {reason: amount["documents"] for reason, amount in counts.items()} == expected
    assert ">max mean line length</th>" in corpus_page(settings.path)


def test_an_unknown_filter_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError) as caught:
        load_data_recipe("quickstart", ["corpus.filters=[{type: length}]"])
    assert "corpus.filters.0" in str(caught.value)
    assert "short" in str(caught.value)
