"""Guards of a step: no update if numbers are not finite, and a warning at a loss spike."""

from collections import deque
from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from typing import Any

import torch
import torch.distributed as dist

from feldspar.core.errors import NonFiniteError
from feldspar.core.progress import say
from feldspar.core.records import append_record
from feldspar.recipe.sections.runtime import NonFiniteVariant, SkipNonFinite
from feldspar.runtime.collectives import gather_json, is_first, world_size
from feldspar.runtime.run_folder import RunFolder


def all_finite(loss: torch.Tensor | float, gradient_norm: torch.Tensor | float) -> bool:
    """Tell whether both numbers are finite on all processes; the answer is the same on each
    process."""
    tensors = [value for value in (loss, gradient_norm) if isinstance(value, torch.Tensor)]
    device = tensors[0].device if tensors else torch.device("cpu")
    values = [torch.as_tensor(value, device=device).detach() for value in (loss, gradient_norm)]
    bad = sum((~torch.isfinite(value)).any().to(torch.int32) for value in values)
    bad = torch.as_tensor(bad, device=device)
    if world_size() > 1:
        dist.all_reduce(bad)
    return int(bad) == 0


class NonFinitePolicy:
    """Reaction to a step that is not finite: end the run, or skip the step."""

    def __init__(self, settings: NonFiniteVariant, folder: RunFolder) -> None:
        self._up_to = settings.up_to if isinstance(settings, SkipNonFinite) else 0
        self._folder = folder
        self.skipped = 0

    def refuse(
        self, step: int, position: int, batch: list[str], loss: float, gradient_norm: float
    ) -> None:
        """Record the batch of a refused step (names of its data) in bad_batches.jsonl.

        Each process calls this. Raises NonFiniteError if the policy allows no more such steps.
        """
        parts = gather_json([batch, repr(float(loss))])
        self.skipped += 1
        if is_first():
            record = {
                "step": step,
                self._folder.position_unit: position,
                "batch": list(dict.fromkeys(name for names, _ in parts for name in names)),
                "loss_by_rank": [value for _, value in parts],
                "gradient_norm": gradient_norm,
            }
            append_record(self._folder.bad_batches, record)
        found = f"loss {loss}, gradient norm {gradient_norm}"
        if self.skipped > self._up_to:
            allowed = f"{self._up_to} skipped steps" if self._up_to else "none"
            raise NonFiniteError(
                f"the loss or gradient of step {step} is not finite; nothing was updated",
                where=str(self._folder.bad_batches),
                found=found,
                allowed=allowed,
                do="lower the learning rate, or look at the batch; runtime.on_non_finite "
                "can skip such steps",
            )
        say(
            f"warning: step {step} is skipped, {found} ({self.skipped} of at most "
            f"{self._up_to} such steps)"
        )

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"skipped": self.skipped}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.skipped = int(state["skipped"])


@dataclass(frozen=True)
class Spike:
    """A loss that is far above the recent ones."""

    step: int
    loss: float
    mean: float
    deviation: float

    def __str__(self) -> str:
        sigmas = (self.loss - self.mean) / self.deviation if self.deviation else float("inf")
        return (
            f"loss spike at step {self.step}: {self.loss:.4f}, {sigmas:.1f} standard deviations "
            f"above the recent mean {self.mean:.4f}"
        )

    def record(self) -> dict[str, Any]:
        """Return the spike as JSON."""
        return asdict(self)


class SpikeDetector:
    """Compare each loss with the mean and standard deviation of those before it.

    A spike is a loss above ``mean + sigmas * deviation`` of the last ``window`` losses, when there
    are at least ``warmup`` of them. A spike is not added to the window. After ``patience`` spikes
    in a row they are added, because the level has changed.
    """

    def __init__(
        self, window: int = 128, sigmas: float = 6.0, warmup: int = 32, patience: int = 8
    ) -> None:
        self._losses: deque[float] = deque(maxlen=window)
        self._sigmas = sigmas
        self._warmup = warmup
        self._patience = patience
        self._in_a_row = 0

    def observe(self, step: int, loss: float) -> Spike | None:
        """Take one loss; return the spike if it is one."""
        if not isfinite(loss):
            return None
        spike = self._compare(step, loss)
        self._in_a_row = self._in_a_row + 1 if spike else 0
        if spike is None or self._in_a_row >= self._patience:
            self._losses.append(loss)
        return spike

    def _compare(self, step: int, loss: float) -> Spike | None:
        count = len(self._losses)
        if count < self._warmup:
            return None
        mean = sum(self._losses) / count
        deviation = sqrt(sum((value - mean) ** 2 for value in self._losses) / count)
        return (
            Spike(step, loss, mean, deviation) if loss > mean + self._sigmas * deviation else None
        )

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"losses": list(self._losses), "in_a_row": self._in_a_row}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._losses.clear()
        self._losses.extend(state["losses"])
        self._in_a_row = int(state["in_a_row"])
