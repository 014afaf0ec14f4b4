"""Encode conversations: the special tokens of the template become ids, those of a message text."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.chat_template import NONCHARACTERS, ChatTemplate, Message
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

BEGIN, END = NONCHARACTERS[-2:]
"""Marks around the strings of special tokens in messages."""
MARKED = f"{BEGIN}[^{BEGIN}{END}]*{END}"
PROBE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "feldspar"})
"""A conversation that shows how a template ends a turn of the assistant."""


@dataclass(frozen=True)
class EncodedConversation:
    """The tokens of a conversation, and which of them the assistant wrote."""

    ids: list[int]
    turns: list[tuple[int, int]]
    """First token and the one after the last of each turn of the assistant, its end included."""


class ChatEncoder:
    """Encode conversations as ``apply_chat_template`` of ``transformers`` does.

    Only the template's own text can give special tokens: their strings inside of a message are
    encoded as text.
    """

    def __init__(self, tokenizer: TextTokenizer, template: ChatTemplate) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self._special = Tokenizer.from_str(tokenizer.to_json())
        # A post-processor may trim spaces off the places of tokens.
        self._special.post_processor = None  # pyrefly: ignore
        self.special_ids = set(tokenizer.special_ids.values())
        self._strings = _pattern(tokenizer)
        added = self._special.get_added_tokens_decoder()
        normalized = any(added[number].normalized for number in self.special_ids)
        self._may_normalize = normalized and self._special.normalizer is not None

    def special_string_in(self, messages: Sequence[Message]) -> str | None:
        """Return a special token's string in a message; None if there is none."""
        found = (self._strings.search(text) for text in _texts(messages))
        string = next((each[0] for each in found if each is not None), None)
        return string or self._normalized_special(messages)

    def encode(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = False
    ) -> list[int]:
        """Return the ids of a conversation, ready for the next answer if asked.

        Raises UserError where the template refuses the messages, and where normalisation makes a
        special token of a message's text.
        """
        marked = [_marked(each, self._strings) for each in messages]
        text = self.template.render(marked, add_generation_prompt=add_generation_prompt)
        pieces = re.split(f"({MARKED})", text)
        ids = self._ids(pieces[0])
        for piece in pieces[1:]:
            plain = piece.startswith(BEGIN)
            inner = piece.replace(BEGIN, "").replace(END, "")
            ids += _ids_within(inner, self.tokenizer.encode if plain else self._ids)
        if (found := self._normalized_special(marked)) is not None:
            raise UserError("a message holds a special token in another spelling", found=found)
        return ids

    def encode_turns(self, messages: Sequence[Message]) -> EncodedConversation:
        """Return the ids of a conversation with the assistant's turns.

        White space after the token that ends a turn belongs to none. Raises UserError where a
        message holds the string of a special token, and as ``ChatTemplate.assistant_spans``.
        """
        if (found := self.special_string_in(messages)) is not None:
            raise UserError(
                "a message holds the string of a special token, which would end or begin a turn",
                found=found,
                do="remove it from the text",
            )
        text, spans = self.template.assistant_spans(messages)
        encoding = self._special.encode(text, add_special_tokens=False)
        places = encoding.offsets
        turns = []
        for begin, end in spans:
            inside = [n for n, (first, last) in enumerate(places) if first < end and last > begin]
            special = [n for n in inside if encoding.ids[n] in self.special_ids]
            if special and not text[places[special[-1]][1] : end].strip():
                inside = [n for n in inside if n <= special[-1]]
            if inside:
                turns.append((inside[0], inside[-1] + 1))
        return EncodedConversation(encoding.ids, turns)

    def _normalized_special(self, messages: Sequence[Message]) -> str | None:
        """Return a text of which normalisation makes a special token; None if there is none.

        Strings of special tokens between marks are left out.
        """
        if not self._may_normalize:
            return None
        texts = (re.sub(MARKED, "", text) for text in _texts(messages))
        return next((t for t in texts if not self.special_ids.isdisjoint(self._ids(t))), None)

    def _ids(self, text: str) -> list[int]:
        return self._special.encode(text, add_special_tokens=False).ids


def end_of_turn_id(tokenizer: TextTokenizer, template: ChatTemplate) -> int | None:
    """Return the special token that ends a turn of the assistant; None if there is none."""
    try:
        text = template.render(PROBE)
    except UserError:
        return None
    _, _, after = text.rpartition(PROBE[-1]["content"])
    found = _pattern(tokenizer).match(after.lstrip())
    return None if found is None else tokenizer.special_ids[found[0]]


def _pattern(tokenizer: TextTokenizer) -> re.Pattern[str]:
    """Return the pattern of the strings of special tokens."""
    longest_first = sorted(filter(None, tokenizer.special_ids), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _ids_within(text: str, encode: Callable[[str], list[int]]) -> list[int]:
    """Return the ids of ``text`` where it follows other text."""
    # Some tokenizers put a space before the beginning of a text: here that is the line feed's.
    line, ids = encode("\n"), encode("\n" + text)
    return ids[len(line) :] if ids[: len(line)] == line else encode(text)


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings of a message's fields, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _texts(each)


def _marked(value: Any, strings: re.Pattern[str]) -> Any:
    """Return a message's fields with marks around the strings of special tokens."""
    if isinstance(value, str):
        text = value.replace(BEGIN, "").replace(END, "")
        return strings.sub(lambda found: f"{BEGIN}{found[0]}{END}", text)
    if isinstance(value, Mapping):
        return {key: _marked(each, strings) for key, each in value.items()}
    return [_marked(each, strings) for each in value] if isinstance(value, list) else value
