"""How a run is executed and kept: device, precision, distribution, checkpoints. Torch-free."""

from typing import Annotated, Literal

from pydantic import Field

from feldspar.recipe.amounts import Amount
from feldspar.recipe.base import Count, NameOrMapping, Settings


class AutoDistribution(Settings):
    """One process; DistributedDataParallel when started by torchrun."""

    type: Literal["auto"] = "auto"


class SingleDistribution(Settings):
    """One process."""

    type: Literal["single"] = "single"


class DdpDistribution(Settings):
    """Every process holds the whole model; gradients are averaged (needs torchrun)."""

    type: Literal["ddp"] = "ddp"


class FsdpDistribution(Settings):
    """Parameters, gradients and optimizer state are split over the processes (needs torchrun)."""

    type: Literal["fsdp"] = "fsdp"
    shards: Count | None = None
    """Processes that share one copy of the model; default: all of them."""


DistributionVariant = Annotated[
    AutoDistribution | SingleDistribution | DdpDistribution | FsdpDistribution,
    Field(discriminator="type"),
    NameOrMapping,
]


class StopOnNonFinite(Settings):
    """End the run at the first loss or gradient that is not finite."""

    type: Literal["stop"] = "stop"


class SkipNonFinite(Settings):
    """Leave out the update of such a step, a limited number of times."""

    type: Literal["skip"] = "skip"
    up_to: Count
    """Steps of the whole run that may be left out; one more ends it."""


NonFiniteVariant = Annotated[
    StopOnNonFinite | SkipNonFinite, Field(discriminator="type"), NameOrMapping
]


class CommonRuntime(Settings):
    """The machine's part of any run; never changes the mathematics beyond rounding."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a CUDA device where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the matrix products; auto: bfloat16 autocast on CUDA, float32 on a CPU."""
    threads: Literal["auto"] | Annotated[int, Field(gt=0, le=4096)] = "auto"
    """Processor threads of torch; auto: one or all that the machine grants, by measurement."""
    trackers: tuple[Literal["tensorboard"], ...] = ("tensorboard",)
    """Where metrics go beside metrics.jsonl."""
    on_non_finite: NonFiniteVariant = StopOnNonFinite()
    """What happens at a loss or gradient that is not finite; no such step updates anything."""


class RuntimeSettings(CommonRuntime):
    """The machine's part of a language model's run."""

    compile: bool | Literal["auto"] = "auto"
    """Whether torch.compile is used; auto: on CUDA only."""
    micro_batch_sequences: Literal["auto"] | Count = "auto"
    """Sequences that one process computes at a time; auto finds what fits."""
    activation_memory: Literal["store", "recompute"] = "store"
    """Keep each block's activations, or compute them again in the backward pass."""
    distribution: DistributionVariant = AutoDistribution()
    """One process, copies of the model, or one model split over processes."""


class KeepSettings(Settings):
    """Which checkpoints survive; one that any rule keeps is kept."""

    last: Count = 2
    """The newest ones."""
    every: Amount | None = None
    """Beside them, the first one at or after each multiple of this amount."""
    best: str | None = None
    """Beside them, the one with the best value of this metric, such as validation/loss."""
    best_is: Literal["lowest", "highest"] = "lowest"
    """Which value of that metric is the best."""


class CheckpointSettings(Settings):
    """When checkpoints are written and how long they stay."""

    every: Amount = Amount.parse("10% of run")
    """Distance between two checkpoints; the end of each phase has one too."""
    keep: KeepSettings = KeepSettings()
    """Which ones survive."""
