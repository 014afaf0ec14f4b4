"""The fields of text and of names are found, or the user is asked which one."""

from typing import Any

import pytest

from feldspar.begin.fields import NO_ID, AmbiguousFieldError, choose_fields
from feldspar.core.errors import UserError

LONG, LONGER = "word " * 40, "other words " * 400


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"text": LONG, "title": "a"}, "text"),
        ({"content": LONG, "html": LONGER}, "content"),
        ({"abstract": LONG, "label": "yes"}, "abstract"),
        ({"summary": LONG, "story": LONGER}, "story"),
        ({"meta": {"body": LONG}, "n": 3}, "meta.body"),
        ({"text": "en", "passage": LONG}, "passage"),
        ({"text": None, "passage": LONG}, "passage"),
    ],
)
def test_the_field_of_text(record: dict[str, Any], field: str) -> None:
    assert choose_fields([record, record], "here", None).text == field


def test_two_fields_alike_are_named_and_one_can_be_chosen() -> None:
    records = [{"question": LONG, "answer": LONG + LONG, "id": 1}]
    with pytest.raises(AmbiguousFieldError, match="2 fields look like the text") as error:
        choose_fields(records, "talk.jsonl", None)
    assert error.value.do == "say which one to train on: --text-field answer"
    assert [each.name for each in error.value.alike] == ["answer", "question"]
    assert choose_fields(records, "talk.jsonl", "question").text == "question"


def test_records_without_text_are_refused() -> None:
    with pytest.raises(UserError, match="no field holds a text") as error:
        choose_fields([{"n": 1, "deep": {"m": [2]}}], "here", None)
    assert error.value.found == "n, deep, deep.m"
    with pytest.raises(UserError, match="no field holds a text"):
        choose_fields([], "here", None)
    with pytest.raises(UserError, match="no record has the field of text"):
        choose_fields([{"text": LONG}], "here", "absent")


@pytest.mark.parametrize(
    ("ids", "field"),
    [
        ([{"id": 1}, {"id": 2}], "id"),
        ([{"id": 0.5, "url": "a"}, {"id": 1.5, "url": "b"}], "url"),
        ([{"id": True}, {"id": False}], NO_ID),
        ([{"id": 1}, {"id": 1}], NO_ID),
        ([{}, {}], "id"),
    ],
)
def test_the_field_that_names_documents(ids: list[dict[str, Any]], field: str) -> None:
    assert choose_fields([{"text": LONG, **each} for each in ids], "here", None).id == field
