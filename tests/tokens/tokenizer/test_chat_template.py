"""Chat templates render as in transformers; bad ones are refused with their line."""

from datetime import datetime
from typing import Any

import pytest

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.chat_template import ChatTemplate
from tests.tokens.chat_templates import (
    CHATML,
    CONVERSATIONS,
    GEMMA,
    LLAMA32,
    LONG,
    QUESTION,
    TEMPLATES,
    THINKING,
    THINKING_MARKED,
    turn,
)

NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def theirs(template: str, messages: Any, add: bool) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    plain = [{k: v for k, v in each.items() if v is not None} for each in messages]
    rendered, _ = render_jinja_template(
        [plain], chat_template=template, add_generation_prompt=add, **NAMES
    )
    return rendered[0]


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_is_that_of_transformers(name: str, messages: Any, add: bool) -> None:
    template = ChatTemplate(TEMPLATES[name], NAMES)
    try:
        expected = theirs(TEMPLATES[name], messages, add)
    except Exception as refused:  # the template's own refusal
        with pytest.raises(UserError, match="refuses the conversation") as found:
            template.render(messages, add_generation_prompt=add)
        assert str(refused) in found.value.what
        return
    assert template.render(messages, add_generation_prompt=add) == expected


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("{% for m in messages %}\n{{ m.content }\n{% endfor %}", 2, "unexpected '}'"),
        ("a\nb\n{% if x %}", 3, "Unexpected end of template"),
        ("{{ 'a' | nonsense }}", 1, "No filter named 'nonsense'"),
        ("a\n{% endgeneration %}", 2, "unknown tag 'endgeneration'"),
    ],
)
def test_a_text_that_is_no_template_is_refused_with_its_line(
    text: str, line: int, told: str
) -> None:
    with pytest.raises(UserError, match="the chat template cannot be parsed: ") as found:
        ChatTemplate(text, NAMES)
    assert told in found.value.what and f"line {line}" in str(found.value.where)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ raise_exception('no ' + messages[0].role) }}", "no user"),
        ("{{ messages[7].content }}", "has no element 7"),
        ("{{ 1 // 0 }}", "division"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_template_that_fails_is_one_message(text: str, told: str) -> None:
    with pytest.raises(UserError, match="the chat template refuses the conversation") as found:
        ChatTemplate(text, NAMES).render(QUESTION)
    assert told in found.value.what


def test_the_day_can_be_given() -> None:
    template = ChatTemplate(LLAMA32, NAMES, now=lambda: datetime(2025, 3, 4))
    assert "Today Date: 04 Mar 2025\n" in template.render(QUESTION)


def test_turns_begin_after_the_prompt_and_hold_their_end() -> None:
    text, spans = ChatTemplate(CHATML, NAMES).assistant_spans(LONG)
    turns = [text[begin:end] for begin, end in spans]
    assert turns == [f"{each['content']}<|im_end|>\n" for each in LONG[1::2]]


def test_marks_tell_turns_where_a_template_changes_earlier_ones() -> None:
    with pytest.raises(UserError, match="turns of the assistant cannot be told apart") as found:
        ChatTemplate(THINKING, NAMES).assistant_spans(LONG)
    assert "{% generation %}" in str(found.value.do)
    marked = ChatTemplate(THINKING_MARKED, NAMES)
    assert marked.render(LONG) == ChatTemplate(THINKING, NAMES).render(LONG)
    text, spans = marked.assistant_spans(LONG)
    turns = [text[begin:end] for begin, end in spans]
    assert turns == [f"{each['content']}<|im_end|>" for each in LONG[1::2]]
    # One turn needs no marks.
    text, spans = ChatTemplate(THINKING, NAMES).assistant_spans(LONG[:2])
    assert [text[a:b] for a, b in spans] == [
        f"<think>\n\n</think>\n\n{LONG[1]['content']}<|im_end|>\n"
    ]


def test_a_template_without_a_generation_prompt_has_turns_too() -> None:
    text, spans = ChatTemplate(TEMPLATES["llama2"], NAMES).assistant_spans(LONG)
    assert [text[a:b] for a, b in spans] == [f" {m['content'].strip()} </s>" for m in LONG[1::2]]
    text, spans = ChatTemplate(GEMMA, NAMES).assistant_spans(LONG)
    assert [text[a:b] for a, b in spans] == [
        f"{m['content'].strip()}<end_of_turn>\n" for m in LONG[1::2]
    ]


def test_several_messages_of_the_assistant_in_a_row() -> None:
    messages = [*QUESTION, turn("assistant", "one"), turn("assistant", "two")]
    text, spans = ChatTemplate(CHATML, NAMES).assistant_spans(messages)
    assert [text[a:b] for a, b in spans] == ["one<|im_end|>\n", "two<|im_end|>\n"]
