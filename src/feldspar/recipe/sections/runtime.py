"""Settings of a run's execution: device, precision, distribution, checkpoints. Loads no torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from feldspar.recipe.amounts import Amount
from feldspar.recipe.base import Count, NameOrMapping, Settings, without_defaults


class AutoDistribution(Settings):
    """One process, or DistributedDataParallel when started by torchrun."""

    type: Literal["auto"] = "auto"


class SingleDistribution(Settings):
    """One process."""

    type: Literal["single"] = "single"


class DdpDistribution(Settings):
    """Each process holds the whole model, and gradients are averaged (needs torchrun)."""

    type: Literal["ddp"] = "ddp"


class FsdpDistribution(Settings):
    """Parameters, gradients and optimizer state are split over the processes (needs torchrun)."""

    type: Literal["fsdp"] = "fsdp"
    shards: Count | None = None
    """Number of processes that share one copy of the model; default: all of them."""


DistributionVariant = Annotated[
    AutoDistribution | SingleDistribution | DdpDistribution | FsdpDistribution,
    Field(discriminator="type"),
    NameOrMapping,
]


class StopOnNonFinite(Settings):
    """End the run at the first loss or gradient that is not finite."""

    type: Literal["stop"] = "stop"


class SkipNonFinite(Settings):
    """Skip the update of a step that is not finite, a limited number of times."""

    type: Literal["skip"] = "skip"
    up_to: Count
    """Number of steps of the whole run that may be skipped; one more ends the run."""


NonFiniteVariant = Annotated[
    StopOnNonFinite | SkipNonFinite, Field(discriminator="type"), NameOrMapping
]


class CommonRuntime(Settings):
    """Settings of the machine for any run; they change results by rounding only."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; auto takes a CUDA device if there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of matrix products; auto: bfloat16 autocast on CUDA, float32 on a CPU."""
    threads: Literal["auto"] | Annotated[int, Field(gt=0, le=4096)] = "auto"
    """Processor threads of torch; auto: one or all available threads, whichever is measured as
    faster."""
    trackers: tuple[Literal["tensorboard"], ...] = ("tensorboard",)
    """Destinations of metrics beside metrics.jsonl."""
    on_non_finite: NonFiniteVariant = StopOnNonFinite()
    """Reaction to a loss or gradient that is not finite; such a step never updates anything."""


class RuntimeSettings(CommonRuntime):
    """Settings of the machine for a language model's run."""

    compile: bool | Literal["auto"] = "auto"
    """Use torch.compile; auto: on CUDA only."""
    micro_batch_sequences: Literal["auto"] | Count = "auto"
    """Sequences that one process computes at a time; auto finds a number that fits in memory."""
    activation_memory: Literal["store", "recompute", "reversible"] = "store"
    """store: keep each block's activations. recompute: keep its input, and compute them again in
    the backward pass. reversible: keep the last block's outputs only; it needs, and is the default
    of, a reversible model."""
    masked_products: Literal["auto", "dense", "sparse"] = "auto"
    """Products of masked matrices. dense: multiply the zeros too. sparse: multiply the kept entries
    only, wherever there is a product for that. auto: the faster of the two for each matrix, as
    measured when the run begins."""
    distribution: DistributionVariant = AutoDistribution()
    """One process, one copy of the model in each process, or one model split over processes."""

    @model_serializer(mode="wrap")
    def _without_masked_products(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ["masked_products"])


class KeepSettings(Settings):
    """Checkpoints that are kept; one rule that keeps a checkpoint is enough."""

    last: Count = 2
    """Number of newest checkpoints to keep."""
    every: Amount | None = None
    """Also keep the first checkpoint at or after each multiple of this amount."""
    best: str | None = None
    """Also keep the checkpoint with the best value of this metric, such as validation/loss."""
    best_is: Literal["lowest", "highest"] = "lowest"
    """Value of that metric that counts as best."""


class CheckpointSettings(Settings):
    """When checkpoints are written and how long they are kept."""

    every: Amount = Amount.parse("10% of run")
    """Distance between two checkpoints; each phase ends with one too."""
    keep: KeepSettings = KeepSettings()
    """Checkpoints that are kept."""
