"""Retrieval questions (oracle B9) and how they are scored."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.evaluate.tasks.retrieval import DEPTHS, Question, questions, tokenize
from feldspar.evaluate.tasks.retrieval_score import (
    answer_questions,
    is_exact,
    wilson_interval,
)
from feldspar.evaluate.text_model import TextModel
from feldspar.recipe.sections.position_scaling import LinearScaling
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

Make = Callable[..., TextModel]
TASKS = ["passkey", "key_value", "lines"]


@pytest.fixture(params=["bytes", "pairs"])
def any_tokenizer(
    request: pytest.FixtureRequest, tokenizer: TextTokenizer, shards: ShardSet
) -> TextTokenizer:
    return tokenizer if request.param == "bytes" else TextTokenizer.load(shards.tokenizer)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("length", [500, 1200])
def test_questions_are_full_hold_their_answer_once_and_repeat(
    any_tokenizer: TextTokenizer, task: str, length: int
) -> None:
    made = questions(task, any_tokenizer, length, 11, seed=3)
    assert made == questions(task, any_tokenizer, length, 11, seed=3)
    assert made[0].text != questions(task, any_tokenizer, length, 11, seed=4)[0].text
    assert [question.depth for question in made] == list(DEPTHS)
    places = []
    for question in made:
        assert question.tokens[0] == any_tokenizer.end_of_document_id
        assert list(question.tokens[1:]) == tokenize(any_tokenizer, question.text)
        assert length - 60 < len(question.tokens) <= length
        answer = question.answer.strip()
        words = re.findall("[0-9a-f]+" if task == "key_value" else "[0-9]+", question.text)
        assert words.count(answer) == 1
        assert len(set(question.wrong)) == 9 and question.answer not in question.wrong
        if task != "passkey":
            assert all(words.count(wrong.strip()) == 1 for wrong in question.wrong)
        places.append(question.text.index(answer) / len(question.text))
    assert places == sorted(places) and places[0] < 0.1 and places[-1] > 0.75


def test_too_short_a_length_is_refused_with_the_shortest(tokenizer: TextTokenizer) -> None:
    for task in TASKS:
        with pytest.raises(UserError, match=f"{task} has at least") as caught:
            questions(task, tokenizer, 40, 1, seed=0)
        shortest = int(re.findall("at least ([0-9]+)", str(caught.value))[0])
        assert questions(task, tokenizer, shortest, 1, seed=0)


def likelihood(model: TextModel, question: Question, option: str) -> float:
    tokens = tokenize(model.tokenizer, option)
    row = torch.tensor([[*question.tokens, *tokens]])
    losses = model.decoder.token_losses(row[:, :-1], row[:, 1:])
    return -float(losses[0, -len(tokens) :].double().sum())


@pytest.mark.parametrize("task", TASKS)
def test_the_likeliest_of_ten_is_found_as_by_one_pass_each(make_model: Make, task: str) -> None:
    model = make_model(positions="alibi", max_sequence_length=600, std=0.5)
    model.decoder.scale_positions(LinearScaling(type="linear", train_length=64))
    asked = questions(task, model.tokenizer, 480, 6, seed=0)
    expected = [
        likelihood(model, question, question.answer)
        > max(likelihood(model, question, option) for option in question.wrong)
        for question in asked
    ]
    assert answer_questions(model, asked)["ranked"] == pytest.approx(sum(expected) / 6)
    # Where the answer is the only option that was ever likely, it is found.
    sure = replace(asked[0], wrong=tuple(option + option for option in asked[0].wrong))
    assert answer_questions(model, [sure])["ranked"] == 1.0


def test_the_first_number_counts() -> None:
    assert is_exact(" 48213, keep", " 48213") and is_exact(" is 48213.", " 48213")
    assert not is_exact(" 482134", " 48213") and not is_exact(" 1 48213", " 48213")
    assert is_exact('0a1b2c", ', "0a1b2c") and not is_exact("none", " 48213")


def test_commas_between_thousands_belong_to_the_number() -> None:
    assert is_exact("12,345", "12345") and is_exact(" 1,234,567.", " 1234567")
    assert is_exact("12, 345", "12") and is_exact("12,3456", "12") and is_exact("1234,567", "1234")
    assert not is_exact("12,345", "12") and not is_exact("12,345", "12346")
    assert is_exact("12,345", "12,345".replace(",", "")) and is_exact("0a1,234", "0a1")


def test_chance_and_intervals(make_model: Make) -> None:
    model = make_model(positions="alibi", max_sequence_length=600, std=0.3)
    found = answer_questions(model, questions("lines", model.tokenizer, 460, 4, seed=0))
    assert found["ranked_chance"] == 0.1 and set(found["by_depth"]) == {"0.0", "0.1", "0.2", "0.3"}
    low, high = found["ranked_interval"]
    assert 0 <= low <= found["ranked"] <= high <= 1
    # Wilson's interval for 3 of 10, as printed in textbooks.
    assert wilson_interval(3, 10) == pytest.approx((0.1078, 0.6032), abs=1e-4)
    assert wilson_interval(0, 5)[0] == 0.0 and wilson_interval(5, 5)[1] == 1.0
