"""Settings of a study: many runs of one recipe that differ in a few values."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from feldspar.recipe.base import Count, Settings


class Range(Settings):
    """A range of values, to draw from or to lay a grid over."""

    low: PositiveFloat
    """Smallest value."""
    high: PositiveFloat
    """Largest value."""
    scale: Literal["log2", "linear"] = "log2"
    """Spacing of values between the two."""
    points: Annotated[int, Field(ge=2)] | None = None
    """Number of grid values, both ends included. Without it, values are drawn from the range."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low: {self.low:g} must be less than high: {self.high:g}")
        return self

    def grid(self, points: int | None = None) -> tuple[float, ...]:
        """Return ``points`` values (default: the range's own number) from low to high."""
        count = points or self.points
        assert count is not None and count >= 2, "a grid has two ends"
        return tuple(self.at(index / (count - 1)) for index in range(count))

    def at(self, share: float) -> float:
        """Return the value at a share of the range, to twelve digits; 0 is low, 1 is high."""
        if self.scale == "linear":
            value = self.low + share * (self.high - self.low)
        else:
            value = self.low * (self.high / self.low) ** share
        # Rounding may exceed an end by a little.
        return min(max(float(f"{value:.11e}"), self.low), self.high)


class SearchSettings(Settings):
    """Method to draw the values of trials."""

    sampler: Literal["random", "tpe"] = "random"
    """random: independent draws, uniform on each range's scale; tpe: Optuna's tree-structured
    Parzen estimator."""
    trials: Count = 16
    """Number of runs on the proxy."""
    round_trials: Count | None = None
    """For tpe: number of trials drawn together, before any of their scores is known; default: 4.
    The draws depend on this number and not on the number of workers, so give at least the number of
    workers."""

    @model_validator(mode="after")
    def _rounds_are_of_the_estimator(self) -> Self:
        if self.sampler == "random" and self.round_trials is not None:
            raise ValueError(
                "round_trials: random draws need no rounds; remove it or set sampler: tpe"
            )
        return self


class StudySettings(Settings):
    """A study of the recipe; coordinate-check, transfer, scaling run and reproduce read it."""

    vary: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)] | Range] = {}
    """Dotted keys of the recipe, each with its values or a range of numbers."""
    seeds: Count = 1
    """Number of runs of each point; they use the recipe's seed and those after it."""
    score: str = "train/loss"
    """Metric that runs are compared by, lower is better. train/loss is the mean over the last fifth
    of the steps."""
    search: SearchSettings = SearchSettings()
    """Search on the proxy by transfer."""
    targets: tuple[dict[str, Any], ...] = ()
    """Other model sizes as overrides: transfer verifies on them, and scaling run trains them all.
    """
    held_out: Annotated[int, Field(ge=0)] = 1
    """Number of largest sizes that are left out of a law's fit and then predicted."""
