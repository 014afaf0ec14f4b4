"""Render conversations with a chat template, as ``transformers`` renders them.

A chat template is a Jinja template over ``messages``. It comes with a model and is not trusted: it
runs in Jinja's sandbox and sees nothing but the messages and the names of special tokens.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from feldspar.core.errors import UserError, missing_extra

Message = Mapping[str, Any]
"""A turn of a conversation: ``role``, ``content``, and other fields that a template may read."""
Spans = list[tuple[int, int]]
"""First character and the one after the last, of parts of a text."""
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Characters that Unicode sets aside for marks inside of a program."""


class ChatTemplate:
    """A parsed chat template.

    ``special_tokens`` are strings by name, such as ``bos_token``, which the template may use.
    ``now`` gives the time for templates that name the day. Raises UserError, with ``where`` and the
    line, for a text that is no template, and SetupError where jinja2 is not installed.
    """

    def __init__(
        self,
        text: str,
        special_tokens: Mapping[str, str],
        *,
        where: str = "chat template",
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.text = text
        self.where = where
        self._variables = dict(special_tokens)
        self._marks: tuple[str, str] | None = None
        environment = _environment(now, self._marked)
        from jinja2 import TemplateSyntaxError

        try:
            self._template = environment.from_string(text)
        except TemplateSyntaxError as error:
            lines = [*text.splitlines(), ""]
            raise UserError(
                f"the chat template cannot be parsed: {error.message}",
                where=f"{where}, line {error.lineno}",
                found=lines[min(error.lineno, len(lines)) - 1].strip() or None,
                do="correct the template that lies beside tokenizer.json",
            ) from None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Return the text of ``messages``, ready for the next answer if asked.

        Raises UserError where the template refuses the messages or fails.
        """
        # The template must not see None: transformers leaves such fields out.
        plain = [{key: v for key, v in each.items() if v is not None} for each in messages]
        try:
            return self._template.render(
                messages=plain,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except UserError:
            raise
        except Exception as error:  # a template can raise anything
            raise UserError(
                f"the chat template refuses the conversation: {error or type(error).__name__}",
                where=self.where,
            ) from None

    def assistant_spans(self, messages: Sequence[Message]) -> tuple[str, Spans]:
        """Return the text of ``messages``, and where the assistant's turns stand in it.

        A turn begins where the model is asked for an answer, and holds the end of the turn. Turns
        are found by rendering the beginnings of the conversation, or by the template's own
        ``{% generation %}`` marks. The first message must be another's. Raises UserError where
        neither finds them.
        """
        text = self.render(messages)
        spans = self._rendered_spans(messages, text) or self._marked_spans(messages, text)
        if spans is None:
            raise UserError(
                "the turns of the assistant cannot be told apart from the rest: the chat template "
                "renders the beginning of a conversation in another way than the whole",
                where=self.where,
                do="put {% generation %} and {% endgeneration %} around the assistant's turns in a "
                "template of your own, or give conversations of one turn",
            )
        return text, spans

    def _rendered_spans(self, messages: Sequence[Message], text: str) -> Spans | None:
        """Return the parts that each turn adds to ``text``; None where a turn changes others."""
        spans = []
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                begin = self.render(messages[:index], add_generation_prompt=True)
                end = self.render(messages[: index + 1])
                if not (text.startswith(end) and end.startswith(begin)):
                    return None
                spans.append((len(begin), len(end)))
        return spans

    def _marked_spans(self, messages: Sequence[Message], text: str) -> Spans | None:
        """Return the parts between the template's own marks; None if there are none."""
        used = json.dumps(list(messages), ensure_ascii=False) + self.text
        begin, end = [mark for mark in NONCHARACTERS if mark not in used][:2]
        self._marks = begin, end
        try:
            marked = self.render(messages)
        finally:
            self._marks = None
        spans, length, first = [], 0, 0
        for character in marked:
            if character == begin:
                first = length
            elif character == end:
                spans.append((first, length))
            else:
                length += 1
        unmarked = marked.replace(begin, "").replace(end, "")
        return spans if spans and unmarked == text else None

    def _marked(self, text: str) -> str:
        return text if self._marks is None else self._marks[0] + text + self._marks[1]


def _environment(now: Callable[[], datetime], marked: Callable[[str], str]) -> Any:
    """Return Jinja's environment with the settings, filters and functions of ``transformers``."""
    try:
        import jinja2
        from jinja2 import nodes
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise missing_extra("jinja2", "chat") from None

    class Generation(Extension):
        """``{% generation %}``: the marks around a turn of the assistant."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("_around")
            return nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _around(self, caller: Callable[[], str]) -> str:
            return marked(caller())

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    functions: dict[str, Any] = {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: now().strftime(form),
    }
    environment.globals.update(functions)
    environment.filters["tojson"] = tojson
    return environment
