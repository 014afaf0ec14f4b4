"""The records of a run on both sides of the place where its second phase begins."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar.runtime.checkpoint import OPTIMIZER
from feldspar.runtime.run_folder import RunFolder
from feldspar.train.load import find_checkpoint
from feldspar.train.optimizer import STEP

WINDOW_STEPS = 20


@dataclass(frozen=True)
class Switch:
    """The records on both sides of the only switch of a run of two phases."""

    step: int
    """The last step of the first phase."""
    learning_rates: tuple[float, float]
    """The rates of the last step before and of the first step after."""
    off_the_line: float
    """Distance of the first rate after from the line through the two before, as a share."""
    tokens_per_step: tuple[int, int]
    losses: tuple[float, float]
    """Mean training loss of the 20 steps before and after."""
    gradient_norms: tuple[float, float]
    """Mean gradient norm of the same steps."""
    updates: int
    """Updates that the optimizer's state has counted by the end of the run."""
    steps: int
    """Steps of the run."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Switch":
        """Read what ``asdict`` made; pairs may be lists."""
        return cls(**values)

    def is_continuous(self, line: float) -> bool:
        """Return True where rate, tokens per step and optimizer state all went on.

        The rate may lie off its line by less than the share ``line``.
        """
        same_tokens = self.tokens_per_step[0] == self.tokens_per_step[1]
        return self.off_the_line < line and same_tokens and self.updates == self.steps


def phase_switch(run: Path) -> Switch:
    """Read the switch of a finished run of two phases."""
    return switch_of(RunFolder(run).steps(), optimizer_updates(run))


def switch_of(records: Sequence[Mapping[str, Any]], updates: int) -> Switch:
    """Find the switch in the records of a run's steps."""
    first = next(
        index
        for index, (earlier, later) in enumerate(itertools.pairwise(records), 1)
        if earlier["phase"] != later["phase"]
    )
    rates = [record["learning_rate"] for record in records[first - 2 : first + 1]]
    expected = 2 * rates[1] - rates[0]
    tokens = [record["tokens"] for record in records[first - 2 : first + 1]]
    before = records[max(first - WINDOW_STEPS, 0) : first]
    after = records[first : first + WINDOW_STEPS]
    return Switch(
        step=records[first - 1]["step"],
        learning_rates=(rates[1], rates[2]),
        off_the_line=abs(rates[2] / expected - 1),
        tokens_per_step=(tokens[1] - tokens[0], tokens[2] - tokens[1]),
        losses=(mean(before, "train/loss"), mean(after, "train/loss")),
        gradient_norms=(mean(before, "gradient_norm"), mean(after, "gradient_norm")),
        updates=updates,
        steps=len(records),
    )


def optimizer_updates(run: Path) -> int:
    """Return the fewest updates that the state of any tensor has seen by the last checkpoint."""
    files = find_checkpoint(run, "last").files_of(OPTIMIZER)
    counts = [name for name in files if name.startswith(f"{STEP}/")]
    return min(int(files[name]) for name in counts)


def mean(records: Sequence[Mapping[str, Any]], key: str) -> float:
    """Return the mean of one measurement over steps."""
    return sum(record[key] for record in records) / len(records)
