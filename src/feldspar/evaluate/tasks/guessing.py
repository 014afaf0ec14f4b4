"""Measure how close a model is to guessing: the risk of random guessing score (2309.10818)."""

from collections.abc import Sequence
from dataclasses import dataclass

from feldspar.core.errors import UserError


@dataclass(frozen=True)
class GuessingScore:
    """Score of a model's accuracies: ``score`` is 1 for a model that guesses; lower is better.

    It also falls for sub-tasks *below* chance; the sign of ``mean_above_chance`` shows which it is.
    """

    score: float
    mean_above_chance: float


def guessing_score(accuracies: Sequence[float], choices: int | Sequence[int] = 4) -> GuessingScore:
    """Return 1 - mean of |accuracy - 1/choices| over sub-tasks; each counts once, whatever its
    size.

    ``choices`` is the number of possible answers, one number for all sub-tasks or one for each.
    Raises UserError if there is no sub-task, an accuracy is outside of 0 to 1, or there are fewer
    than two choices.
    """
    given = [choices] * len(accuracies) if isinstance(choices, int) else list(choices)
    if not accuracies or len(given) != len(accuracies):
        raise UserError(
            f"there are {len(accuracies)} accuracies, but {len(given)} numbers of "
            "choices; give one for each"
        )
    for accuracy, number in zip(accuracies, given, strict=True):
        if not 0 <= accuracy <= 1 or number < 2:
            raise UserError(
                f"accuracy {accuracy} with {number} choices is not possible",
                allowed="an accuracy from 0 to 1, at least 2 choices",
            )
    above = [accuracy - 1 / number for accuracy, number in zip(accuracies, given, strict=True)]
    mean = sum(map(abs, above)) / len(above)
    return GuessingScore(1 - mean, sum(above) / len(above))
