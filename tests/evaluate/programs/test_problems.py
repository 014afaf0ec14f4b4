"""Sets of problems: the shipped one with its own solutions, and files of users."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.evaluate.programs.problems import SHIPPED, Problem, read_problems
from feldspar.evaluate.programs.sandbox import Outcome, run_program

LINE = {"task_id": "a", "prompt": "def f():", "entry_point": "f", "test": "def check(c): pass"}


def solutions() -> dict[str, str]:
    with gzip.open(SHIPPED["humaneval"], "rt", encoding="utf-8") as file:
        records = map(json.loads, file)
        return {record["task_id"]: record["canonical_solution"] for record in records}


def outcomes(problems: list[Problem], completions: dict[str, str]) -> list[Outcome]:
    programs = [problem.program("\n" + completions[problem.task_id]) for problem in problems]
    with ThreadPoolExecutor(2) as pool:
        return [result.outcome for result in pool.map(run_program, programs)]


def test_the_shipped_set() -> None:
    problems = read_problems("humaneval")
    assert len(problems) == 164
    assert [problem.task_id for problem in problems] == [f"HumanEval/{n}" for n in range(164)]
    assert "MIT License" in (SHIPPED["humaneval"].parent / "LICENSE").read_text()


def test_some_solutions_pass_and_broken_ones_fail() -> None:
    problems, own = read_problems("humaneval")[::20], solutions()
    assert set(outcomes(problems, own)) == {Outcome.PASSED}
    broken = dict.fromkeys(own, "    return None\n")
    assert Outcome.PASSED not in outcomes(problems, broken)


def test_a_prompt_is_given_without_the_white_space_at_its_end() -> None:
    problem = Problem("a", "def f():\n    ", "f", "check = 1")
    assert problem.beginning == "def f():"
    assert problem.program("\n    pass").startswith("def f():\n    pass\n")


@pytest.mark.slow
def test_all_solutions_pass_and_no_empty_one_does() -> None:
    problems, own = read_problems("humaneval"), solutions()
    assert set(outcomes(problems, own)) == {Outcome.PASSED}
    nothing = dict.fromkeys(own, "    pass\n")
    assert Outcome.PASSED not in outcomes(problems, nothing)


@pytest.mark.parametrize("name", ["problems.jsonl", "problems.jsonl.gz"])
def test_files_of_users(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    lines = f"{json.dumps(LINE | {'more': 1})}\n\n{json.dumps(LINE | {'task_id': 'b'})}\n".encode()
    path.write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    assert read_problems(str(path)) == [Problem(**LINE), Problem(**LINE | {"task_id": "b"})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no problems"),
        ("{", "line 1 is not JSON"),
        ("[]", "line 1: task_id is missing"),
        (json.dumps(LINE | {"test": 3}), "line 1: test is missing or is no text"),
        (json.dumps(LINE | {"entry_point": "f()"}), "is no name of Python"),
        (f"{json.dumps(LINE)}\n{json.dumps(LINE)}", "line 2: task_id 'a' comes twice"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_problems(str(path))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a file nor a shipped set"):
        read_problems("humanevil")
    broken = tmp_path / "problems.jsonl.gz"
    broken.write_bytes(b"no gzip")
    with pytest.raises(UserError, match="cannot be read"):
        read_problems(str(broken))
