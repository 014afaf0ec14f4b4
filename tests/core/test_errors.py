"""The layout of errors and the exit codes."""

import pytest

from feldspar.core.errors import (
    FOUND_LIMIT,
    FeldsparError,
    InternalError,
    RunError,
    SetupError,
    UserError,
    missing_extra,
    nearest,
    shorten,
)


def test_layout_is_what_where_found_allowed_do() -> None:
    error = UserError("what", where="file:3", found=7, allowed=("a", "b"), do="this")
    assert str(error).splitlines() == [
        "what",
        "  where: file:3",
        "  found: 7",
        "  allowed: a, b",
        "  do: this",
    ]


def test_unknown_parts_are_left_out() -> None:
    assert str(RunError("what")) == "what"
    assert str(RunError("what", found=0)).splitlines() == ["what", "  found: 0"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [(FeldsparError, 70), (UserError, 2), (SetupError, 3), (RunError, 4), (InternalError, 70)],
)
def test_exit_codes(kind: type[FeldsparError], code: int) -> None:
    assert kind("x").exit_code == code


def test_errors_are_the_builtin_ones_that_python_users_expect() -> None:
    assert issubclass(UserError, ValueError)
    assert issubclass(RunError, RuntimeError)


def test_found_is_one_line_of_limited_length() -> None:
    found = UserError("x", found="a\n" * 500).found
    assert found is not None and "\n" not in found and len(found) == FOUND_LIMIT
    assert shorten("  a \n b ") == "a b"


def test_missing_extra_says_how_to_install_it() -> None:
    error = missing_extra("transformers", "hf")
    assert error.exit_code == 3 and "feldspar[hf]" in str(error)


def test_nearest() -> None:
    assert nearest("lenght", ["name", "length"]) == "length"
    assert nearest("zzz", ["name", "length"]) is None
