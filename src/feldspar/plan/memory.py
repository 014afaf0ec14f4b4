"""Memory of one device in a training step, by the tensors that the trainer holds.

Weights, their gradients and the optimizer's moments are float32, whatever the precision of
products. They and the activations, which the model itself is asked for, are exact; the head is an
estimate. The sum is within a tenth of the most that torch allocates: activations are freed while
gradients appear, and the backward pass needs room of its own.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from feldspar.core.accelerators import Accelerator
from feldspar.core.errors import UserError
from feldspar.core.rows import ModelShapes, ParameterRow, Role
from feldspar.model.cross_entropy import working_bytes
from feldspar.model.decoder import resolved_vocab_size
from feldspar.model.low_rank import ROLES as LORA_ROLES
from feldspar.plan.activations import MicroBatch, activation_bytes
from feldspar.plan.batches import check_divides, cpu_micro_batch, largest_micro_batch
from feldspar.plan.timeline import PhasePlan, Timeline
from feldspar.plan.trained import held_shapes, trained_parts, trained_rows
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.runtime import FsdpDistribution, RuntimeSettings
from feldspar.sparsity.density import densities

WIDE = 4
"""Bytes of a float32."""
USABLE_SHARE = 0.9
"""Usable share of an accelerator's memory. Driver, communication and fragments take the rest."""


@dataclass(frozen=True)
class Machine:
    """The devices that a run is planned for. Without accelerator: a processor or an
    unknown device.
    """

    accelerator: Accelerator | None = None
    devices: int | None = None
    """Number of devices. None: as many as one copy of the model is split over, usually one."""

    def runs_on_accelerator(self, runtime: RuntimeSettings) -> bool:
        """Tell whether a run on this machine trains on an accelerator."""
        return self.accelerator is not None or runtime.device == "cuda"

    def multiplies_bfloat16(self, runtime: RuntimeSettings) -> bool:
        """Tell whether matrix products of a run on this machine are in bfloat16."""
        automatic = runtime.precision == "auto" and self.runs_on_accelerator(runtime)
        return runtime.precision == "bfloat16" or automatic


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest device in the phase that needs most."""

    phase: str
    distribution: str
    """Distribution: single, ddp or fsdp."""
    devices: int
    shards: int
    """Devices that share one copy of weights, gradients and moments."""
    precision: str
    """Type of the matrix products."""
    activation_memory: str
    micro_batch_sequences: int
    context_length: int
    weights_bytes: int
    gradients_bytes: int
    """Gradients of the trained parameters; undivided under fsdp while micro-batches add up."""
    optimizer_bytes: int
    masks_bytes: int
    """One byte for each entry of a masked matrix."""
    working_weights_bytes: int
    """Weights as products read them: bfloat16 copies, or weights that fsdp gathers (estimate)."""
    activations_bytes: int
    head_bytes: int
    """Logits and gradients of the fused cross-entropy (estimate)."""

    @property
    def total_bytes(self) -> int:
        """The sum of all parts."""
        return sum(value for name, value in asdict(self).items() if name.endswith("_bytes"))

    def record(self, machine: Machine) -> dict[str, Any]:
        """Return the figures as plain values, with the device that they are for."""
        known = machine.accelerator
        return asdict(self) | {
            "total_bytes": self.total_bytes,
            "device": None if known is None else known.name,
            "device_bytes": None if known is None else int(known.memory_bytes),
        }

    def warnings(self, machine: Machine) -> list[str]:
        """Return a warning if the memory does not fit the device, else None."""
        found = []
        known = machine.accelerator
        if known is not None and self.total_bytes > USABLE_SHARE * known.memory_bytes:
            found.append(
                f"memory: {self.total_bytes / 1e9:.3g} GB a device are more than {USABLE_SHARE:.0%}"
                f" of an {known.name}'s {known.memory_bytes / 1e9:.3g} GB: use more devices with "
                "runtime.distribution=fsdp, or runtime.activation_memory=recompute"
            )
        return found


def plan_memory(recipe: Recipe, timeline: Timeline, machine: Machine) -> Memory:
    """Return the memory of the phase that needs most. Raises the errors of ``phase_memories``."""
    memories = phase_memories(recipe, timeline, machine)
    return max(memories, key=lambda memory: memory.total_bytes)


def drift_warnings(recipe: Recipe, bfloat16: bool) -> list[str]:
    """Return a warning if the backward pass rebuilds streams that ``bfloat16`` products move."""
    settings = recipe.model.reversible
    rebuilds = settings is not None and recipe.runtime.activation_memory == "reversible"
    if not rebuilds or settings.fixed_point_bits is not None or not bfloat16:
        return []
    drift = (
        "runtime.activation_memory: streams rebuilt under bfloat16 drift from those of the forward "
        "pass, and gradients with them; model.reversible.fixed_point_bits=14 makes them exact"
    )
    return [drift]


def phase_memories(recipe: Recipe, timeline: Timeline, machine: Machine) -> list[Memory]:
    """Return the memory of each phase.

    Raises UserError where the recipe and the machine contradict each other, and for a batch that
    does not divide among the devices.
    """
    devices = device_count(recipe, machine)
    if machine.accelerator is not None and recipe.runtime.device == "cpu":
        raise UserError(
            f"runtime.device: the recipe trains on a CPU, not on an {machine.accelerator.name}",
            do="set runtime.device=cuda, or leave out --device",
        )
    for phase in timeline.phases:
        for sequences in phase.divisible_sequences:
            check_divides(sequences, devices, f"phases.{phase.index}.batch")
    shapes = held_shapes(recipe)
    counter = _Counter(recipe, shapes, machine, devices, *_distribution(recipe, devices))
    return [counter.phase(phase) for phase in timeline.phases]


def device_count(recipe: Recipe, machine: Machine) -> int:
    """Return the number of devices of the run. Raises UserError if it is less than 1."""
    if machine.devices is None:
        return getattr(recipe.runtime.distribution, "shards", None) or 1
    if machine.devices < 1:
        raise UserError("--devices: must be at least 1", found=machine.devices)
    return machine.devices


def _distribution(recipe: Recipe, devices: int) -> tuple[str, int]:
    """Return the kind of distribution, and the number of devices that share one copy of
    the model.
    """
    settings = recipe.runtime.distribution
    if settings.type == "single" and devices > 1:
        raise UserError(
            f"runtime.distribution: single is one device, not {devices}",
            do="set runtime.distribution=ddp (or fsdp)",
        )
    if not isinstance(settings, FsdpDistribution):
        several = "ddp" if devices > 1 else "single"
        return several if settings.type == "auto" else settings.type, 1
    shards = settings.shards or devices
    if devices % shards:
        raise UserError(
            "runtime.distribution.shards does not divide the number of devices",
            found=f"{shards} shards, {devices} devices",
            allowed=(str(n) for n in range(1, devices + 1) if devices % n == 0),
        )
    return "fsdp", shards


@dataclass(frozen=True)
class _Counter:
    """Counts the bytes of a phase."""

    recipe: Recipe
    shapes: ModelShapes
    """The rows that the run holds, with the matrices of LoRA."""
    machine: Machine
    devices: int
    distribution: str
    shards: int

    @property
    def on_accelerator(self) -> bool:
        return self.machine.runs_on_accelerator(self.recipe.runtime)

    def phase(self, phase: PhasePlan) -> Memory:
        """Return the memory with the recipe's micro-batch, or with the one that the trainer would
        find.
        """
        share = phase.largest_sequences // self.devices
        wanted = self.recipe.runtime.micro_batch_sequences
        if wanted != "auto":
            return self.memory(phase, min(wanted, share), share)
        if not self.on_accelerator:
            return self.memory(phase, cpu_micro_batch(share, phase.context_length), share)
        known = self.machine.accelerator
        room = 0.0 if known is None else USABLE_SHARE * known.memory_bytes

        def fits(sequences: int) -> bool:
            return self.memory(phase, sequences, share).total_bytes <= room

        return self.memory(phase, largest_micro_batch(share, fits) or 1, share)

    def memory(self, phase: PhasePlan, sequences: int, share: int) -> Memory:
        """Return the memory with ``sequences`` at a time of a device's ``share`` of a step."""
        model = self.recipe.model
        rows = self.shapes.rows
        batch = self.micro_batch(phase, sequences)
        model_rows = [row for row in rows if row.role not in LORA_ROLES]
        trained = trained_rows(self.recipe, model_rows, phase.index)
        updated = trained_parts(self.recipe, trained, phase.index)
        masked = densities(self.recipe.sparsity(phase.index), rows)
        # FSDP2 adds up gradients of whole tensors until micro-batches are exchanged.
        gradient_shards = 1 if sequences < share else self.shards
        gathered = self.shards > 1
        return Memory(
            phase=phase.name,
            distribution=self.distribution,
            devices=self.devices,
            shards=self.shards,
            precision="bfloat16" if batch.bfloat16 else "float32",
            activation_memory=self.recipe.runtime.activation_memory,
            micro_batch_sequences=sequences,
            context_length=phase.context_length,
            weights_bytes=WIDE * _entries(rows, self.shards),
            gradients_bytes=WIDE * _entries(trained, gradient_shards),
            optimizer_bytes=self.optimizer_bytes(updated, phase.index),
            masks_bytes=_entries([row for row in rows if row.name in masked], self.shards),
            working_weights_bytes=(
                _gathered_bytes(self.shapes, batch)
                if gathered
                else product_copy_bytes(self.shapes, batch)
            ),
            activations_bytes=activation_bytes(
                model,
                batch,
                self.recipe.phases[phase.index].lora,
                None if len(trained) == len(rows) else frozenset(row.name for row in trained),
            ),
            head_bytes=working_bytes(
                batch.tokens,
                resolved_vocab_size(model),
                model.d_model,
                batch.product_dtype.itemsize,
                batch.device_type,
                model.logit_soft_cap is not None,
            ),
        )

    def optimizer_bytes(self, updated: Iterable[ParameterRow], phase_index: int) -> int:
        """Count the state that the optimizer keeps of the rows that are updated."""
        optimizer, numbers = self.recipe.optimizer_of(phase_index), 0
        for row in updated:
            rule = optimizer.rule(row)
            numbers += len(rule.moments) * _entries([row], self.shards) + rule.counts_steps
        return WIDE * numbers

    def micro_batch(self, phase: PhasePlan, sequences: int) -> MicroBatch:
        runtime = self.recipe.runtime
        return MicroBatch(
            sequences=sequences,
            context_length=phase.context_length,
            on_accelerator=self.on_accelerator,
            bfloat16=self.machine.multiplies_bfloat16(runtime),
            documents=self.recipe.phases[phase.index].documents == "mask",
            activation_memory=runtime.activation_memory,
        )


def _entries(rows: Iterable[ParameterRow], shards: int) -> int:
    """Return the entries on the first of the devices, where rows split each tensor among
    devices.
    """
    return sum(-(-row.shape[0] // shards) * prod(row.shape[1:]) for row in rows)


def product_copy_bytes(shapes: ModelShapes, batch: MicroBatch) -> int:
    """Return the bytes of the blocks' matrices in bfloat16, which autocast keeps."""
    if not batch.bfloat16:
        return 0
    return batch.product_dtype.itemsize * sum(
        row.count for row in shapes.rows if row.in_block and row.role in (Role.HIDDEN, *LORA_ROLES)
    )


def _gathered_bytes(shapes: ModelShapes, batch: MicroBatch) -> int:
    """Return the bytes that fsdp gathers: tables, head, last norm, a block and the next block."""
    outside = sum(row.count for row in shapes.rows if not row.in_block)
    block = (shapes.parameters - outside) // shapes.n_layers
    return batch.product_dtype.itemsize * (outside + min(2, shapes.n_layers) * block)
