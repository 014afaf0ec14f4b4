"""How near a model's choices are to guessing: the risk of random guessing score (2309.10818)."""

from collections.abc import Sequence
from dataclasses import dataclass

from feldspar.core.errors import UserError


@dataclass(frozen=True)
class GuessingScore:
    """``score`` is 1 for a model that guesses; lower is better.

    It also falls for sub-tasks *below* chance: ``mean_above_chance`` (signed) tells the two apart.
    """

    score: float
    mean_above_chance: float


def guessing_score(accuracies: Sequence[float], choices: int | Sequence[int] = 4) -> GuessingScore:
    """1 - mean of |accuracy - 1/choices| over sub-tasks, each counted once whatever its size.

    ``choices`` is the number of answers to choose from, one for all sub-tasks or one each. Raises
    UserError for no sub-task, accuracies outside of 0 to 1, and fewer than two choices.
    """
    given = [choices] * len(accuracies) if isinstance(choices, int) else list(choices)
    if not accuracies or len(given) != len(accuracies):
        raise UserError(
            f"{len(accuracies)} accuracies and {len(given)} numbers of choices: one each is needed"
        )
    for accuracy, number in zip(accuracies, given, strict=True):
        if not 0 <= accuracy <= 1 or number < 2:
            raise UserError(
                f"an accuracy of {accuracy} with {number} choices",
                allowed="an accuracy from 0 to 1, at least 2 choices",
            )
    above = [accuracy - 1 / number for accuracy, number in zip(accuracies, given, strict=True)]
    mean = sum(map(abs, above)) / len(above)
    return GuessingScore(1 - mean, sum(above) / len(above))
