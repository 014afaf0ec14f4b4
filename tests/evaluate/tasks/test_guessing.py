"""The risk of random guessing score against the specification's cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.evaluate.tasks.guessing import guessing_score


@pytest.mark.parametrize(
    ("accuracies", "score", "above"),
    [
        ((0.25, 0.25, 0.25), 1.0, 0.0),
        ((0.25, 0.75), 0.75, 0.25),
        ((0.20, 0.30, 0.40), 0.916667, 0.05),
    ],
)
def test_cases(accuracies: tuple[float, ...], score: float, above: float) -> None:
    found = guessing_score(accuracies)
    assert found.score == pytest.approx(score, abs=1e-6)
    assert found.mean_above_chance == pytest.approx(above)


def test_choices_of_each_task() -> None:
    assert guessing_score((0.5, 0.25), (2, 4)).score == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(2, 9))
def test_below_chance_lowers_the_score_too_and_only_the_mean_tells(
    accuracies: list[float], choices: int
) -> None:
    found = guessing_score(accuracies, choices)
    assert 1 / choices - 1e-9 <= found.score <= 1
    assert abs(found.mean_above_chance) <= 1 - found.score + 1e-9


@pytest.mark.parametrize(
    ("accuracies", "choices"), [((), 4), ((1.1,), 4), ((0.5,), 1), ((0.5,), (2, 2))]
)
def test_bad_input(accuracies: tuple[float, ...], choices: int) -> None:
    with pytest.raises(UserError):
        guessing_score(accuracies, choices)
