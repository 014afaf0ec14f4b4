"""Pairs: templates, layouts, packing, what counts, the order of epochs, bad input."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from feldspar.core.errors import UserError
from feldspar.recipe.sections.phase_data import TEMPLATES, PairsData, PairTemplate
from feldspar.tokens.sequences.example_reader import ExampleReader, pack_rows
from feldspar.tokens.sequences.pairs import Pair, PairLayout, pair_examples, read_pairs

END, FIRST = 0, 1000


def layout(longest: int = 17, prompt: int = 2, **changes) -> PairLayout:
    return PairLayout(longest, END, FIRST, prompt, **changes)


def pair(source: int, target: int, first: int = 1) -> Pair:
    tokens = np.arange(first, first + source + target)
    return Pair(tokens[:source], tokens[source:], (), f"pairs.jsonl:{first}")


def reader_of(pairs: list[Pair], rows: PairLayout, **settings) -> ExampleReader:
    return ExampleReader(pair_examples(pairs, rows), rows, **settings)


def template(**values) -> PairTemplate:
    return TypeAdapter(PairTemplate).validate_python(values)


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_layout_is_source_vectors_target_end() -> None:
    tokens, begin = layout().sequence(pair(4, 3))
    assert tokens.tolist() == [1, 2, 3, 4, FIRST, FIRST + 1, 5, 6, 7, END] and begin == 6
    tokens, begin = layout(place="prefix").sequence(pair(4, 3))
    assert tokens.tolist() == [FIRST, FIRST + 1, 1, 2, 3, 4, 5, 6, 7, END] and begin == 6
    assert layout(prompt=0).sequence(pair(2, 1))[0].tolist() == [1, 2, 3, END]


def test_a_pair_that_is_too_long() -> None:
    with pytest.raises(UserError, match="source of 12 tokens, 2 soft vectors and a target of 3"):
        layout().sequence(pair(12, 3))
    assert len(layout().sequence(pair(11, 3))[0]) == 17
    cut, begin = layout(truncate=True).sequence(pair(14, 3))
    assert cut.tolist() == [*range(4, 15), FIRST, FIRST + 1, 15, 16, 17, END] and begin == 13
    with pytest.raises(UserError, match="do not fit in 16 tokens"):
        layout(truncate=True).sequence(pair(3, 14))


LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=60)


@given(LENGTHS)
def test_packing_loses_nothing_and_fills_rows(lengths: list[int]) -> None:
    rows = pack_rows(lengths, 20)
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    sums = [sum(lengths[item] for item in row) for row in rows]
    assert max(sums) <= 20
    # Best fit decreasing leaves no two rows that would go into one.
    assert all(a + b > 20 for i, a in enumerate(sums) for b in sums[i + 1 :])
    assert pack_rows(lengths, 20) == rows


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_what_counts_are_targets_and_their_ends(sizes: list[tuple[int, int]]) -> None:
    starts = np.cumsum([1, *(source + target for source, target in sizes)])
    pairs = [pair(*size, int(start)) for size, start in zip(sizes, starts, strict=False)]
    for place in ("between", "prefix"):
        reader = reader_of(pairs, layout(place=place), seed=1, phase="tune", on_target=True)
        batch = reader.read(0, reader.n_rows)
        labels = batch.tokens[:, 1:][batch.label_mask]
        expected = [token for item in pairs for token in (*item.target, END)]
        assert sorted(labels.tolist()) == sorted(expected)
        every = reader_of(pairs, layout(place=place), seed=1, phase="tune", on_target=False)
        batch = every.read(0, every.n_rows)
        labels = batch.tokens[:, 1:][batch.label_mask]
        assert labels.max() < FIRST
        skipped = 0 if place == "prefix" else 1  # the first token of a pair has no token before it
        counted = [t for p in pairs for t in (*p.source[skipped:], *p.target, END)]
        assert sorted(labels.tolist()) == sorted(counted)


def test_documents_are_the_pairs_and_the_padding() -> None:
    pairs = [pair(3, 2, 1), pair(2, 1, 20), pair(11, 2, 40)]
    reader = reader_of(pairs, layout(prompt=0), seed=1, phase="tune", on_target=True)
    batch = reader.read(0, reader.n_rows)
    assert batch.tokens.shape == (2, 17) and batch.document_ids.shape == (2, 16)
    row = next(i for i in range(2) if batch.tokens[i, 0] == 1)
    assert batch.tokens[row].tolist() == [1, 2, 3, 4, 5, END, 20, 21, 22, END, *[END] * 7]
    assert batch.document_ids[row].tolist() == [0] * 6 + [1] * 4 + [2] * 6


def test_each_epoch_has_every_row_once_in_an_order_of_its_own() -> None:
    pairs = [pair(6, 4, 1 + 20 * n) for n in range(12)]
    reader = reader_of(pairs, layout(), seed=1, phase="tune", on_target=True)
    n = reader.n_rows
    firsts = reader.read(0, 3 * n).tokens[:, 0].reshape(3, n)
    assert all(sorted(epoch) == sorted(firsts[0]) for epoch in firsts)
    assert all(not np.array_equal(a, b) for a, b in pairwise(firsts))
    again = reader_of(pairs, layout(), seed=1, phase="tune", on_target=True)
    assert np.array_equal(again.read(n + 3, n + 5).tokens[:, 0], firsts.ravel()[n + 3 : n + 5])
    other = reader_of(pairs, layout(), seed=2, phase="tune", on_target=True)
    assert not np.array_equal(other.read(0, n).tokens[:, 0], firsts[0])
    assert reader.digest == other.digest
    changed = reader_of([*pairs[:-1], pair(6, 5)], layout(), seed=1, phase="x", on_target=True)
    assert changed.digest != reader.digest


def test_shipped_templates_read_records(tmp_path: Path) -> None:
    records = {
        "question_context_answer": {"question": "q?", "context": "c", "answer": "maybe"},
        "text_hallmarks": {
            "text": "t",
            "hallmarks": ["resisting cell death", "cellular energetics"],
        },
        "source_target": {"source": "a", "target": "b"},
    }
    assert set(records) == set(TEMPLATES)
    found = {}
    for name, record in records.items():
        data = PairsData(path=tmp_path / "pairs.jsonl", template=name)
        (found[name],) = read_pairs(write(data.path, record), data.template)
    assert found["question_context_answer"].source == "question: q?\ncontext: c\n"
    assert found["question_context_answer"].target.endswith("context is maybe.")
    assert found["question_context_answer"].labels == ("maybe",)
    assert found["text_hallmarks"].target == (
        "the hallmarks of cancer in this text are cellular energetics, resisting cell death."
    )
    assert found["source_target"].target == "b" and found["source_target"].labels == ()


QUESTION = {"source": "{q}", "target": "{labels}", "labels": {"field": "a.b", "values": ("x", "y")}}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"q": "t", "a": {"b": "z"}}, r"pairs.jsonl:1: 'z' is not a label of the template"),
        ({"q": "t"}, r"pairs.jsonl:1: field 'a.b' must hold a label"),
        ({"a": {"b": "x"}}, r"pairs.jsonl:1: the template needs text in the field 'q'"),
        ({"q": "", "a": {"b": "x"}}, r"pairs.jsonl:1: the source is empty"),
        (["q"], r"pairs.jsonl:1 is not a JSON object"),
    ],
)
def test_a_record_that_does_not_fit_is_named(tmp_path: Path, record: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_pairs(write(tmp_path / "pairs.jsonl", record), template(**QUESTION))


def test_files_without_pairs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_pairs(tmp_path / "none.jsonl", template(**QUESTION))
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="holds no pairs"):
        read_pairs(tmp_path / "blank.jsonl", template(**QUESTION))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "no field"}, "contains no field"),
        ({"source": "{q!r}"}, "field without a plain name"),
        ({"source": "{}"}, "field without a plain name"),
        ({"target": "{answer}"}, "must appear exactly once"),
        ({"target": "{labels} {q}"}, "must be the only field"),
        ({"labels": {"field": "a", "values": ("x", "x")}}, "distinct"),
        ({"labels": {"field": "a", "values": ("x,y", "z"), "several": True}}, "comma"),
    ],
)
def test_templates_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        template(**(QUESTION | changes))
    with pytest.raises(
        ValidationError, match="no template is named 'pubmed'; shipped templates: question_context"
    ):
        PairsData(path=Path("x"), template="pubmed")
