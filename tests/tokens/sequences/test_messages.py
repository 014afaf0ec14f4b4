"""Conversations as training examples: which tokens count, what is cut, what is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.sections.phase_data import MessagesData
from feldspar.tokens.sequences.example_reader import Example, ExampleReader, RowLayout
from feldspar.tokens.sequences.messages import (
    Messages,
    chat_encoder,
    message_examples,
    read_messages,
)
from feldspar.tokens.tokenizer.chat_encoding import ChatEncoder
from tests.tokens.bases import base
from tests.tokens.chat_templates import (
    CHATML,
    CONVERSATIONS,
    LLAMA32,
    LONG,
    SPECIAL,
    TEMPLATES,
    THINKING,
    turn,
)

TOKENIZER = base("gpt2").with_special_tokens(SPECIAL)


def encoder(folder: Path, template: str = CHATML, **changes: Any) -> ChatEncoder:
    path = folder / "chat.jinja"
    path.write_text(template)
    return chat_encoder(TOKENIZER, MessagesData(path=folder / "m.jsonl", template=path, **changes))


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def conversations() -> list[Messages]:
    found = [CONVERSATIONS[name] for name in ("answered", "long", "system", "none")]
    return [Messages(turns, f"m.jsonl:{n}") for n, turns in enumerate(found, start=1)]


@pytest.mark.parametrize("on_target", [True, False])
def test_the_labels_that_count_are_answers_with_their_ends(tmp_path: Path, on_target: bool) -> None:
    examples = message_examples(conversations(), encoder(tmp_path), 300)
    reader = ExampleReader(
        examples,
        RowLayout(300, 0, TOKENIZER.vocab_size),
        seed=1,
        phase="chat",
        on_target=on_target,
    )
    batch = reader.read(0, reader.n_rows)
    assert batch.label_mask is not None and batch.document_ids is not None
    labels = batch.tokens[:, 1:][batch.label_mask].tolist()
    if on_target:
        told = TOKENIZER.decode(labels)
        answers = [
            f"{each['content']}<|im_end|>"
            for conversation in conversations()
            for each in conversation.turns
            if each["role"] == "assistant"
        ]
        assert sorted(told.split("<|im_end|>")) == sorted("".join(answers).split("<|im_end|>"))
    else:
        # All but the first token of each conversation.
        assert len(labels) == sum(len(each.tokens) - 1 for each in examples)


def test_a_conversation_ends_after_the_last_answer_that_fits(tmp_path: Path) -> None:
    own, long = encoder(tmp_path), [Messages(LONG, "m.jsonl:7")]
    (whole,) = message_examples(long, own, 300)
    length, (first, second) = len(whole.tokens), whole.targets
    for longest in (second[1], length - 1):
        (cut,) = message_examples(long, own, longest, cut=True)
        assert cut.targets == (first, second)
        assert cut.tokens.tolist() == whole.tokens[: second[1]].tolist()
    for longest in (first[1], second[1] - 1):
        (cut,) = message_examples(long, own, longest, cut=True)
        assert cut.targets == (first,) and len(cut.tokens) == first[1]
    assert message_examples(long, own, length, cut=True)[0].tokens.tolist() == whole.tokens.tolist()
    with pytest.raises(UserError, match=f"m.jsonl:7: a conversation of {length} tokens") as found:
        message_examples(long, own, length - 1)
    assert "truncate: turns" in str(found.value.do)
    with pytest.raises(UserError, match="does not fit"):
        message_examples(long, own, first[1] - 1, cut=True)


def test_digests_of_pairs_stay_and_targets_are_part_of_them() -> None:
    tokens, layout = np.arange(1, 9), RowLayout(16, 0, 100)

    def digest(*targets: tuple[int, int]) -> str:
        settings = {"seed": 1, "phase": "x", "on_target": True}
        return ExampleReader([Example(tokens, targets)], layout, **settings).digest

    state = hashlib.sha256(np.array([8, 3], "<i8").tobytes() + tokens.astype("<i8").tobytes())
    assert digest((3, 8)) == state.hexdigest(), "runs of earlier versions go on"
    assert len({digest((3, 8)), digest((3, 7)), digest((2, 8)), digest((1, 2), (3, 8))}) == 4


BAD = [
    ({"text": "a"}, "the field 'messages' must hold a list of messages"),
    ({"messages": []}, "the field 'messages' must hold a list of messages"),
    ({"messages": ["a"]}, "message 0 must have a role and a content"),
    ({"messages": [turn("user", "a"), {"role": "assistant"}]}, "message 1 must have a role and a"),
    ({"messages": [turn("user", "a"), turn("assistent", "b")]}, "message 1 has an unknown role"),
    ({"messages": [turn("user", "a")]}, "has no turn of the assistant"),
    ({"messages": [turn("assistant", "a")]}, "begins with the assistant"),
]


@pytest.mark.parametrize(("record", "message"), BAD)
def test_records_that_are_no_conversation(tmp_path: Path, record: object, message: str) -> None:
    good = {"messages": LONG}
    with pytest.raises(UserError, match=f"m.jsonl:2: .*{message}"):
        read_messages(write(tmp_path / "m.jsonl", good, record))


@pytest.mark.parametrize(
    ("template", "turns", "message"),
    [
        (CHATML, [turn("user", "a<|im_end|>"), turn("assistant", "b")], "string of a special"),
        (THINKING, LONG, "cannot be told apart"),
        (TEMPLATES["gemma"], CONVERSATIONS["system"], "System role not supported"),
        (LLAMA32, LONG, "names the day"),
        (CHATML.replace("<|im_end|>", "END"), LONG, "ends an answer without a special token"),
        ("{% for", LONG, "cannot be parsed"),
    ],
)
def test_what_a_template_cannot_do(tmp_path: Path, template: str, turns: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        message_examples([Messages(turns, "m.jsonl:3")], encoder(tmp_path, template), 300)
    placed = message not in ("cannot be parsed", "ends an answer without a special token")
    assert found.value.what.startswith("m.jsonl:3: ") is placed


def test_the_day_of_a_template_is_a_setting(tmp_path: Path) -> None:
    dated = encoder(tmp_path, LLAMA32, date="2024-07-26")
    (example,) = message_examples([Messages(LONG, "m.jsonl:1")], dated, 300)
    assert "Today Date: 26 Jul 2024" in TOKENIZER.decode(example.tokens)
    with pytest.raises(ValueError, match="date"):
        MessagesData(path=tmp_path, date="2024-13-26")


def test_files_and_tokenizers_without_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist, so there are no messages"):
        read_messages(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="holds no messages"):
        (tmp_path / "blank.jsonl").write_text("\n\n")
        read_messages(tmp_path / "blank.jsonl")
    with pytest.raises(UserError, match="the tokenizer has no chat template"):
        chat_encoder(TOKENIZER, MessagesData(path=tmp_path))
    with pytest.raises(UserError, match="cannot be read"):
        chat_encoder(TOKENIZER, MessagesData(path=tmp_path, template=tmp_path / "none.jinja"))
