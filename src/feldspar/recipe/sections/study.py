"""Many runs of one recipe: what varies, which shapes are aimed at, what the runs are judged by."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from feldspar.recipe.base import Count, Settings


class Range(Settings):
    """An interval of values, drawn from or walked over."""

    low: PositiveFloat
    """Smallest value."""
    high: PositiveFloat
    """Largest value."""
    scale: Literal["log2", "linear"] = "log2"
    """How values are spread between the two."""
    points: Annotated[int, Field(ge=2)] | None = None
    """Values of the grid, both ends included; without it the range is drawn from."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low: {self.low:g} is not below high: {self.high:g}")
        return self

    def grid(self, points: int | None = None) -> tuple[float, ...]:
        """``points`` values (default: the range's own) from low to high."""
        count = points or self.points
        assert count is not None and count >= 2, "a grid has two ends"
        return tuple(self.at(index / (count - 1)) for index in range(count))

    def at(self, share: float) -> float:
        """Return the value at a share of the way, to twelve digits: 0 is low, 1 is high."""
        if self.scale == "linear":
            value = self.low + share * (self.high - self.low)
        else:
            value = self.low * (self.high / self.low) ** share
        # Rounding may step over an end by a hair.
        return min(max(float(f"{value:.11e}"), self.low), self.high)


class SearchSettings(Settings):
    """How the values of trials are drawn."""

    sampler: Literal["random", "tpe"] = "random"
    """random: independent draws, uniform on each range's scale; tpe: Optuna's tree-structured
    Parzen estimator."""
    trials: Count = 16
    """Runs on the proxy."""
    round_trials: Count | None = None
    """For tpe: trials drawn together, before the scores of any of them are known, 4 by default; the
    draws depend on it and not on the number of workers, so give it at least that number."""

    @model_validator(mode="after")
    def _rounds_are_of_the_estimator(self) -> Self:
        if self.sampler == "random" and self.round_trials is not None:
            raise ValueError("round_trials: random draws need no rounds; drop it or take tpe")
        return self


class StudySettings(Settings):
    """A study of the recipe; read by coordinate-check, transfer, scaling run and reproduce."""

    vary: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)] | Range] = {}
    """Dotted keys of the recipe and their values, or a range of numbers."""
    seeds: Count = 1
    """Runs of each point, with the recipe's seed and those after it."""
    score: str = "train/loss"
    """The metric that runs are judged by, lower is better; train/loss is the mean over the last
    fifth of the steps."""
    search: SearchSettings = SearchSettings()
    """How transfer searches on the proxy."""
    targets: tuple[dict[str, Any], ...] = ()
    """Other shapes as overrides: where transfer verifies, or the family of scaling run."""
    held_out: Annotated[int, Field(ge=0)] = 1
    """How many of the largest sizes a law must predict without having seen them."""
