"""Turn conversations into training examples: messages from JSON lines, tokens by a chat template.

The targets of an example are the assistant's turns, each with the token that ends it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.core.errors import UserError, shorten
from feldspar.corpus.document import Tolerance
from feldspar.corpus.readers.jsonl import jsonl_records
from feldspar.recipe.sections.phase_data import MessagesData
from feldspar.tokens.sequences.example_reader import Example
from feldspar.tokens.tokenizer.chat_encoding import ChatEncoder, end_of_turn_id
from feldspar.tokens.tokenizer.chat_template import ChatTemplate, Message
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

ROLES = ("system", "user", "assistant", "tool")
ASSISTANT = "assistant"


@dataclass(frozen=True)
class Messages:
    """One conversation, and the place it was read from."""

    turns: list[Message]
    place: str


def read_messages(path: Path) -> list[Messages]:
    """Return the conversations in a file of JSON lines, in order.

    Raises UserError, with file and line, for a record that is no conversation with an answer.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist, so there are no messages")
    records = jsonl_records(str(path), path, path.name, Tolerance())
    found = [Messages(_turns(record, place), place) for place, record in records]
    if not found:
        raise UserError(f"{path} holds no messages")
    return found


def _turns(record: Mapping[str, Any], place: str) -> list[Message]:
    turns = record.get("messages")
    if not isinstance(turns, list) or not turns:
        raise UserError(
            f"{place}: the field 'messages' must hold a list of messages",
            found=shorten(repr(turns)) if turns is not None else shorten(", ".join(record)),
        )
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise UserError(
                f"{place}: message {number} must have a role and a content, which is text",
                found=shorten(repr(turn)),
            )
        if turn.get("role") not in ROLES:
            raise UserError(
                f"{place}: message {number} has an unknown role",
                found=turn.get("role"),
                allowed=ROLES,
            )
    roles = [turn["role"] for turn in turns]
    if ASSISTANT not in roles:
        raise UserError(f"{place}: the conversation has no turn of the assistant to learn from")
    if roles[0] == ASSISTANT:
        raise UserError(f"{place}: the conversation begins with the assistant, so nothing is asked")
    return turns


def chat_encoder(tokenizer: TextTokenizer, data: MessagesData) -> ChatEncoder:
    """Return the encoder of a phase's conversations, by its own template or the tokenizer's.

    The day that templates may name is ``data.date``, so that every run reads the same text. Raises
    UserError where there is no template.
    """
    text, where = tokenizer.chat_template, "the tokenizer's chat template"
    if data.template is not None:
        text, where = read_template(data.template), str(data.template)
    if text is None:
        raise UserError(
            "the tokenizer has no chat template",
            do="give one in a file: data: {type: messages, path: FILE, template: FILE}",
        )

    def now() -> datetime:
        if data.date is None:
            raise UserError(
                "the chat template names the day, so each day would read other text",
                where=where,
                do="set data.date, such as 2024-07-26",
            )
        return datetime.fromisoformat(data.date)

    return ChatEncoder(
        tokenizer, ChatTemplate(text, tokenizer.special_tokens, where=where, now=now)
    )


def read_template(path: Path) -> str:
    """Return a chat template from a file. Raises UserError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"template: {path} cannot be read: {error}") from error


def message_examples(
    conversations: Sequence[Messages], encoder: ChatEncoder, longest: int, *, cut: bool = False
) -> list[Example]:
    """Return conversations as examples of at most ``longest`` tokens.

    With ``cut`` a conversation that is too long ends after the last answer that fits. Raises
    UserError, with the place, where none fits, for messages that the template refuses, and for
    strings of special tokens in them; also for a template that does not end answers.
    """
    examples = []
    for each in conversations:
        try:
            encoded = encoder.encode_turns(each.turns)
        except UserError as error:
            error.what = f"{each.place}: {error.what}"
            raise
        ids, turns = encoded.ids, encoded.turns
        if cut and len(ids) > longest:
            turns = [turn for turn in turns if turn[1] <= longest]
            ids = ids[: turns[-1][1]] if turns else ids
        if len(ids) > longest:
            raise UserError(
                f"{each.place}: a conversation of {len(ids)} tokens does not fit in {longest - 1}",
                do="raise context_length" + ("" if cut else " or set truncate: turns"),
            )
        if not turns:
            raise UserError(f"{each.place}: the assistant's turns have no tokens")
        examples.append(Example(np.array(ids, np.int64), tuple(turns)))
    if end_of_turn_id(encoder.tokenizer, encoder.template) is None:
        raise UserError(
            "the chat template ends an answer without a special token of the tokenizer, so that no "
            "answer would end",
            where=encoder.template.where,
            do="declare the token that the template writes: tokenizer.special_tokens",
        )
    return examples
