"""Conversations: answers equal those of transformers, and only new tokens are computed."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

import feldspar
from feldspar.core.errors import UserError
from feldspar.train.opened_model import Model
from tests.evaluate.chat_model import CONTEXT, write_chat_model
from tests.tokens.chat_templates import CHATML, THINKING

QUESTIONS = ("Where is the old house?", "And the bridge?", "Who lives there <|im_end|> now?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("chat") / "model"
    write_chat_model(found)
    return found


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return feldspar.open_model(folder, device="cpu")


def answer_of_transformers(theirs: Any, tokenizer: Any, messages: Any, new: int) -> str:
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False, return_tensors="pt"
    )
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    with torch.no_grad():
        written = theirs.generate(
            ids, max_new_tokens=new, do_sample=False, eos_token_id=ends, pad_token_id=0
        )
    before = tokenizer.decode(ids[0], skip_special_tokens=True)
    return tokenizer.decode(written[0], skip_special_tokens=True)[len(before) :]


@pytest.mark.parametrize("template", [CHATML, THINKING], ids=["chatml", "thinking"])
def test_answers_are_those_of_transformers_turn_by_turn(template: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    theirs = write_chat_model(tmp_path / "model", template)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    conversation = feldspar.open_model(tmp_path / "model").converse("Be brief.", max_new_tokens=9)
    for question in QUESTIONS[:2]:
        answer = "".join(conversation.ask(question))
        asked = conversation.messages[:-1]
        assert answer == answer_of_transformers(theirs, tokenizer, asked, 9)
        assert conversation.messages[-1] == {"role": "assistant", "content": answer}


def test_only_tokens_after_the_unchanged_beginning_are_computed(model: Model) -> None:
    conversation = model.converse(max_new_tokens=5)
    "".join(conversation.ask(QUESTIONS[0]))
    first = conversation.computed_tokens
    "".join(conversation.ask(QUESTIONS[1]))
    second = conversation.computed_tokens - first
    encoder = conversation._encoder
    whole = len(encoder.encode(conversation.messages[:-1], add_generation_prompt=True))
    assert whole > first and second < whole - first + 2 * 5 + 4


def test_a_cache_that_grows_changes_nothing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = model.converse(max_new_tokens=8)
    answers = ["".join(expected.ask(question)) for question in QUESTIONS]
    room = importlib.import_module("feldspar.evaluate.conversation")
    monkeypatch.setattr(room, "FIRST_CACHE_TOKENS", 1)
    growing = model.converse(max_new_tokens=8)
    assert ["".join(growing.ask(question)) for question in QUESTIONS] == answers


def test_an_answer_ends_with_the_turn(model: Model) -> None:
    end = model.tokenizer.id_of("<|im_end|>")
    assert end in model.text_model.stop_ids
    ended = []
    for seed in range(6):
        stream = model.stream("The", 60, temperature=2.0, seed=seed)
        text = "".join(stream)
        assert "<|im_end|>" not in text and (stream.ended or len(stream.new_ids) == 60)
        ended.append(stream.ended and stream.new_ids[-1] == end)
    assert any(ended)


def test_an_interrupted_answer_is_part_of_the_conversation(model: Model) -> None:
    conversation = model.converse(max_new_tokens=8)
    pieces = conversation.ask(QUESTIONS[0])
    first = next(pieces)
    pieces.close()  # pyrefly: ignore
    assert [each["content"] for each in conversation.messages] == [QUESTIONS[0], first]
    fresh = model.converse(max_new_tokens=8)
    fresh.messages = list(conversation.messages)
    assert list(conversation.ask(QUESTIONS[1])) == list(fresh.ask(QUESTIONS[1]))


def test_a_full_context_is_one_message(model: Model) -> None:
    conversation = model.converse(max_new_tokens=1000)
    with pytest.raises(UserError, match=f"fills the model's context of {CONTEXT} tokens"):
        for _ in range(20):
            "".join(conversation.ask("Where is the old house now, and who lives in it?"))
    with pytest.raises(UserError, match="fills the model's context"):
        "".join(conversation.ask("a" * 500))


def test_models_that_cannot_converse_are_refused(tmp_path: Path) -> None:
    write_chat_model(tmp_path / "none", None)
    with pytest.raises(UserError, match="no chat template") as refused:
        feldspar.open_model(tmp_path / "none").converse()
    assert "feldspar generate" in str(refused.value.do)
    write_chat_model(tmp_path / "bad", "a\n{% if %}")
    model = feldspar.open_model(tmp_path / "bad")
    with pytest.raises(UserError, match="the chat template cannot be parsed") as bad:
        model.converse()
    assert "line 2" in str(bad.value.where)
    assert model.generate("The", 2).startswith("The"), "text can still be continued"


def test_texts_begin_as_the_tokenizer_begins_them(folder: Path, model: Model) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("The old house", return_tensors="pt")
    assert ids["input_ids"][0, 0] == tokenizer.bos_token_id
    ends = list(model.text_model.stop_ids)
    with torch.no_grad():
        written = theirs.generate(**ids, max_new_tokens=12, do_sample=False, eos_token_id=ends)
    expected = tokenizer.decode(written[0], skip_special_tokens=True)
    assert model.generate("The old house", 12) == expected
