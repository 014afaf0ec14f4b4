"""pass@k against exact combinatorics, and programs of a model from prompt to figure."""

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from math import comb

import pytest

from feldspar.core.errors import UserError
from feldspar.evaluate.programs.completions import (
    SIDE_BY_SIDE,
    STOPS,
    CompletionSettings,
    Row,
    completions,
)
from feldspar.evaluate.programs.pass_at_k import Solved, pass_at_k, solve_problems
from feldspar.evaluate.programs.problems import Problem
from feldspar.evaluate.text_model import TextModel
from feldspar.model.generation import GREEDY, Sampling
from feldspar.tokens.tokenizer.text_stream import TextStream
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

CHECK = "def check(candidate):\n    assert candidate() == ''"
DRAWN = CompletionSettings(20, 1, Sampling(1.0), seed=3)


def test_all_subsets_of_few_samples() -> None:
    for samples in range(1, 8):
        for passed in range(samples + 1):
            for k in range(1, samples + 1):
                subsets = list(combinations([True] * passed + [False] * (samples - passed), k))
                share = sum(map(any, subsets)) / len(subsets)
                assert pass_at_k(samples, passed, k) == pytest.approx(share, abs=1e-15)


@pytest.mark.parametrize("samples", [1, 10, 200, 2000])
def test_equation_1_exactly(samples: int) -> None:
    for passed in {0, 1, samples // 3, samples - 1, samples}:
        for k in {1, min(10, samples), samples // 2 or 1, samples}:
            exact = 1 - Fraction(comb(samples - passed, k), comb(samples, k))
            # A product of ``passed`` factors, each rounded twice, and a difference.
            assert abs(pass_at_k(samples, passed, k) - exact) <= (3 * passed + 2) * 2**-53


@pytest.mark.parametrize("numbers", [(10, 11, 1), (10, -1, 1), (10, 3, 0), (10, 3, 11)])
def test_impossible_numbers_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="cannot be estimated"):
        pass_at_k(*numbers)


def problem(prompt: str, test: str = CHECK, name: str = "p") -> Problem:
    return Problem(name, prompt, "f", test)


def test_samples_that_pass_are_counted(make_model: Callable[..., TextModel]) -> None:
    # The model may write two tokens only, ! and ", and the second one makes a program that passes.
    model = make_model(n_real_vocab=2, max_sequence_length=64)
    found = solve_problems(model, [problem('def f(): return "')], DRAWN).as_dict([1, 5])
    (result,) = found["results"]
    written = [sample["completion"] for sample in result["samples"]]
    assert set(written) == {"!", '"'}
    assert result["passed"] == written.count('"') == found["outcomes"]["passed"]
    assert found["outcomes"]["error"] == written.count("!")
    assert [s["outcome"] == "passed" for s in result["samples"]] == [w == '"' for w in written]
    for k in (1, 5):
        assert found["pass_at"][str(k)]["value"] == pass_at_k(20, result["passed"], k)
    assert found["limited_by_kernel"] in (True, False)


def test_the_mean_over_problems(make_model: Callable[..., TextModel]) -> None:
    problems = [
        problem("def f(): return ''\n#", name="good"),
        problem("def f(): return", name="bad"),
    ]
    greedy = CompletionSettings(1, 4, GREEDY, seed=0)
    model = make_model(n_real_vocab=1, max_sequence_length=64)
    solved = solve_problems(model, problems, greedy)
    assert [[r.outcome for r in each.results] for each in solved.judged] == [["passed"], ["error"]]
    assert solved.judged[0].completions == ("!!!!",)
    figures = solved.as_dict([1])["pass_at"]["1"]
    assert figures == {"value": 0.5, "standard_error": pytest.approx(0.5)}
    assert Solved(solved.judged[:1], 1).as_dict([1])["pass_at"]["1"]["standard_error"] is None


def test_a_prompt_without_room_is_not_solved(make_model: Callable[..., TextModel]) -> None:
    model = make_model(n_real_vocab=1)
    long = problem("#" * model.context_length)
    found = solve_problems(model, [long], CompletionSettings(1, 4, GREEDY, 0)).as_dict([1])
    assert found["too_long"] == 1 and found["pass_at"]["1"]["value"] == 0
    short = "#" * (model.context_length - 2)
    assert completions(model, short, "p", CompletionSettings(1, 4, GREEDY, 0)) == ["!!"]


def test_completions_depend_on_seed_and_task_only(make_model: Callable[..., TextModel]) -> None:
    model = make_model()
    settings = CompletionSettings(SIDE_BY_SIDE + 2, 8, Sampling(1.0, top_p=0.95), seed=1)
    found = completions(model, "def f():", "a", settings)
    assert found == completions(model, "def f():", "a", settings)
    assert len(found) == settings.samples and len(set(found)) > settings.samples // 2
    assert found != completions(model, "def f():", "b", settings)
    # More samples begin with the same ones.
    fewer = CompletionSettings(SIDE_BY_SIDE, 8, settings.sampling, 1)
    assert completions(model, "def f():", "a", fewer) == found[:SIDE_BY_SIDE]


@pytest.mark.parametrize("stop", STOPS)
def test_a_sample_ends_before_a_stop(tokenizer: TextTokenizer, stop: str) -> None:
    body = "    return 'naïve'\n\n"
    for text, more in ((body + stop, " x"), (body, "")):
        row = Row(TextStream(tokenizer, tokenizer.encode("def f():\n")), (256,))
        for token in [*tokenizer.encode(text + more), 256, *tokenizer.encode("more")]:
            row.add(token)
        assert row.ended and row.text() == body


def test_equal_samples_are_refused(make_model: Callable[..., TextModel]) -> None:
    with pytest.raises(UserError, match="temperature 0 makes 2 equal samples"):
        solve_problems(make_model(), [problem("#")], CompletionSettings(2, 1, GREEDY, 0))
