"""The task of a language model: a decoder on its device that learns to predict the next token."""

from collections.abc import Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from feldspar.core.cgroups import memory_bytes
from feldspar.core.errors import SetupError
from feldspar.core.progress import say
from feldspar.core.rows import ParameterRow
from feldspar.model.decoder import Decoder
from feldspar.model.low_rank import activate, add_low_rank, low_rank_names, merge
from feldspar.parametrization.application import parameter_groups, set_forward_multipliers
from feldspar.plan.batches import check_divides
from feldspar.plan.flops import UTILISATION_CONVENTION, flops_per_token
from feldspar.plan.memory import Memory
from feldspar.plan.summary import Plan
from feldspar.plan.time import SKIPPED_KEY
from feldspar.plan.timeline import PhasePlan, StepPlan
from feldspar.plan.trained import VOCABULARY_ROLES
from feldspar.recipe.sections.sparsity import Dense
from feldspar.runtime.allocator import return_freed_pages
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.collectives import on_each
from feldspar.runtime.device import autocast, choose_compile, choose_precision
from feldspar.runtime.distributed import Distribution, accumulate, unwrap
from feldspar.runtime.shards import LastRows, local_part
from feldspar.runtime.threads import set_threads
from feldspar.sparsity.masks import Masks
from feldspar.sparsity.saved import masks_to_state
from feldspar.train.adaptation import ADAPTATION_KEY
from feldspar.train.data import TrainingData, first_new_token
from feldspar.train.examples import examples_to_state
from feldspar.train.load import SCALING_KEY
from feldspar.train.masked_products import MaskedProducts, wanted_products
from feldspar.train.micro_batch import choose_micro_batch
from feldspar.train.moving_masks import MovingMasks
from feldspar.train.next_token import LanguageModelLoss, SequenceBatches
from feldspar.train.optimizer import Optimizer
from feldspar.train.run_tokenizer import TOKENIZER_KEY, tokenizer_manifest
from feldspar.train.start import (
    begin_low_rank,
    begin_soft_prompt,
    begin_weights,
    place_masks,
    require_same_masks,
    starting_masks,
)


@dataclass
class LanguageModelling:
    """A decoder, ready for the steps of ``phase``."""

    plan: Plan
    data: TrainingData
    distribution: Distribution
    phase: PhasePlan
    precision: torch.dtype
    model: Decoder
    module: nn.Module
    batches: SequenceBatches
    all_masks: Masks
    """The whole masks, for checkpoints."""
    masks: Masks
    """The part of the masks that this process holds."""
    moving: MovingMasks
    products: MaskedProducts
    adaptation: dict[str, Any] | None = None
    """Record of the adaptation of the starting model. None: it was not adapted."""
    skipped_flops: float = 0.0
    """FLOPs of a token that sparse products skip in the current step."""

    @property
    def uses_dropout(self) -> bool:
        """True if the forward pass draws random numbers."""
        recipe = self.plan.recipe
        lora = recipe.phases[self.phase.index].lora
        return recipe.model.dropout > 0 or (lora is not None and lora.dropout > 0)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the module is called."""
        return autocast(self.distribution.device, self.precision)

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters by name, the matrices of LoRA only where the phase has LoRA."""
        rests = self.plan.recipe.phases[self.phase.index].lora is None
        left_out = low_rank_names(self.model) if rests else set()
        named = self.model.named_parameters()
        return {name: tensor for name, tensor in named if name not in left_out}

    def optimizer(self) -> Optimizer:
        """Build a new optimizer for the parameters that the phase trains, by its table."""
        recipe, index = self.plan.recipe, self.phase.index
        groups = parameter_groups(self.model, self.plan.tables[index])
        first_rows = {}
        if recipe.phases[index].trains_new_rows_only:
            first = first_new_token(self.data.shards)
            trained = self.plan.trained[index]
            first_rows = {row.name: first for row in trained if row.role in VOCABULARY_ROLES}
        return Optimizer(groups, recipe.optimizer_of(index), first_rows)

    def enter_phase(self, phase: PhasePlan, optimizer: Optimizer) -> Optimizer:
        """Switch to a phase; return its optimizer, with the old state unless it starts fresh."""
        before, self.phase = self.phase, phase
        recipe, index = self.plan.recipe, phase.index
        sparsity = recipe.sparsity(index)
        if sparsity == Dense():
            self.all_masks = self.masks = Masks()
            self.products.follow(self.all_masks, 0)
        elif not self.all_masks.tensors:  # pruning begins with all entries
            self.all_masks = Masks.draw(sparsity, self.plan.shapes.rows, recipe.seed)
            self.masks = place_masks(self.all_masks, self.model)
            self.products.resume({}, self.all_masks)
        self.all_masks = self.all_masks.moving_by(sparsity)
        self.model.scale_positions(recipe.position_scaling(index))
        begin_soft_prompt(self.model, recipe, index, self.data.shards.vocab_size)
        self._change_low_rank(before.index, index)
        changed = set_trainable(self.model, self.plan.trained[index])
        if changed:
            self.module = self.distribution.wrap(unwrap(self.module), self.precision)
        rescaled = self.plan.tables[index] != self.plan.tables[before.index]
        fresh = recipe.phases[index].optimizer_state == "fresh"
        if changed or rescaled or fresh:
            state = optimizer.state()
            optimizer = self.optimizer()
            if not fresh:
                carry_over(state, optimizer.state())
        self.set_batches()
        return optimizer

    def _change_low_rank(self, before: int, now: int) -> None:
        """Add the updates of LoRA to the weights, or begin new ones, as a phase asks for it."""
        recipe = self.plan.recipe
        had, has = (recipe.phases[index].lora is not None for index in (before, now))
        if had and not has:
            merge(self.model)
        if has and not had:
            begin_low_rank(self.model, self.plan, now)
        activate(self.model, has)

    def begin_step(self, step: StepPlan) -> Hashable:
        """Multiply dense where the step reads gradients of entries that the masks drop."""
        dense = self.moving.needs_dense_gradient(step)
        self.products.begin_step(dense)
        frozen = self._frozen_beside_lora(step.phase.index)
        self.skipped_flops = 0.0 if dense else self.products.skipped_flops(frozen)
        return dense

    def _frozen_beside_lora(self, index: int) -> set[str]:
        """Return the parameters that a phase with LoRA freezes, which FLOPs are counted without."""
        if self.plan.recipe.phases[index].lora is None:
            return set()
        trained = {row.name for row in self.plan.trained[index]}
        return {row.name for row in self.plan.shapes.rows if row.name not in trained}

    def read_dense_gradients(self, step: StepPlan) -> None:
        """Keep the dense gradients of a step that moves masks by them (RigL)."""
        self.moving.read_gradients(step, self.model, self.masks)

    def move_masks(self, step: StepPlan, optimizer: Optimizer) -> None:
        """Move the masks after the update of a step, where they move."""
        masks = self.moving.move(step, self.model, self.all_masks, optimizer)
        if masks is not self.all_masks:
            self.all_masks, self.masks = masks, place_masks(masks, self.model)
            self.products.follow(masks, self._tokens)

    def set_batches(self) -> None:
        """Set the micro-batch and the divisor of the loss for the phase."""
        self.batches.average = self.plan.recipe.phases[self.phase.index].loss.average
        self.batches.micro_batch_sequences = self._micro_batch(self.phase)

    def choose_products(self) -> dict[str, Any] | None:
        """Choose the products of masked matrices; return the choice, None without masks."""
        if not self.all_masks.tensors:
            return None
        return self.products.choose(self.all_masks, self._tokens)

    @property
    def _tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.batches.micro_batch_sequences * self.phase.context_length

    def flops(self, step: StepPlan) -> float:
        """Return forward and backward FLOPs of a step, without those that sparse products skip."""
        recipe, shapes, index = self.plan.recipe, self.plan.shapes, step.phase.index
        trained = None if recipe.phases[index].lora is None else self.plan.trained[index]
        per_token = flops_per_token(recipe.model, shapes, step.phase.context_length, trained)
        return (per_token[UTILISATION_CONVENTION] - self.skipped_flops) * step.length

    def record(self, step: StepPlan, seconds: float, cut_tokens: int) -> dict[str, Any]:
        """Return sequences and tokens of a step, skipped FLOPs, and figures of moved masks."""
        record: dict[str, Any] = {
            "sequences": step.sequences,
            "tokens_per_second": step.length / seconds,
        }
        if self.skipped_flops:
            record[SKIPPED_KEY] = self.skipped_flops
        return record | self.moving.figures | ({"cut_tokens": cut_tokens} if cut_tokens else {})

    def state(self) -> dict[str, Any]:
        """Return a checkpoint's entries on data, tokenizer, masks and adaptation."""
        state: dict[str, Any] = {
            "micro_batch_sequences": self.batches.micro_batch_sequences,
            "shards": self.data.shards.digest,
            TOKENIZER_KEY: tokenizer_manifest(self.data.shards).digest,
            ADAPTATION_KEY: self.adaptation,
            SCALING_KEY: self.model.position_scaling.model_dump(mode="json"),
        }
        examples = examples_to_state(self.plan.recipe, self.phase.index, self.data.examples)
        return state | masks_to_state(self.all_masks) | self.products.state() | examples

    def resume(self, state: dict[str, Any], where: str) -> None:
        """Continue from a checkpoint; on the same number of processes keep its micro-batch.

        Raises RunError where weights that its masks drop are not zero.
        """
        on_each(lambda: self.masks.require_zeros(self.tensors(), where))
        self.products.resume(state, self.all_masks)
        self.adaptation = state.get(ADAPTATION_KEY)
        if self.plan.recipe.runtime.micro_batch_sequences != "auto":
            return
        if state["world_size"] == self.distribution.world_size:
            self.batches.micro_batch_sequences = state["micro_batch_sequences"]
        else:
            say("another number of processes: the same data, losses equal up to rounding")

    def _micro_batch(self, phase: PhasePlan) -> int:
        wanted = self.plan.recipe.runtime.micro_batch_sequences
        share = phase.largest_sequences // self.distribution.world_size
        if wanted != "auto":
            return min(wanted, share)

        def attempt(sequences: int) -> None:
            shape = (sequences, phase.context_length)
            tokens = torch.zeros(shape, dtype=torch.int64, device=self.distribution.device)
            # A copy exchanges nothing, so that no process waits for one that runs out of memory.
            exchanges = self.distribution.kind != "ddp"
            try:
                with accumulate(self.module, last=exchanges):
                    with self.autocast():
                        loss = self.module(tokens, tokens)
                    loss.backward()
            finally:
                self.model.zero_grad(set_to_none=True)

        return choose_micro_batch(share, phase.context_length, self.distribution.device, attempt)


def language_model(
    plan: Plan,
    data: TrainingData,
    distribution: Distribution,
    phase: PhasePlan,
    start: Checkpoint | None,
    masks: Masks | None = None,
) -> LanguageModelling:
    """Build a model for the first step of ``phase``.

    ``masks`` are those of a checkpoint whose weights will be loaded later. Without them the run
    begins with the weights and masks of ``start`` (named by ``start_from``) or with new ones.
    """
    recipe, device = plan.recipe, distribution.device
    for item in plan.timeline.phases:
        for sequences in item.divisible_sequences if item.steering is None else ():
            check_divides(sequences, distribution.world_size, f"phases.{item.index}.batch")
    if distribution.shards == 1:
        require_memory(plan.memory(), device)
    set_threads(recipe.runtime)
    precision = choose_precision(recipe.runtime, device)
    adaptation = None
    return_freed_pages()
    with torch.device("meta"):  # no process needs memory for more than its part
        decoder = Decoder(recipe.model, recipe.soft_prompt_length)
        if recipe.lora is not None:
            add_low_rank(decoder, recipe.lora)
            activate(decoder, recipe.phases[phase.index].lora is not None)
    set_forward_multipliers(decoder, plan.table.forward)
    decoder.scale_positions(recipe.position_scaling(phase.index))
    decoder.activation_memory = recipe.runtime.activation_memory
    set_trainable(decoder, plan.trained[phase.index])
    module: nn.Module = LanguageModelLoss(decoder, data.shards.vocab_size)
    splits = distribution.kind == "fsdp"
    if splits:
        module = distribution.wrap(module, precision)
    module.to_empty(device=device)
    if masks is None:
        adaptation = begin_weights(decoder, plan, data.shards, start)
        masks = starting_masks(plan, start, decoder)
        place_masks(masks, decoder).apply_to_weights(decoder)
    elif recipe.lora is not None:
        begin_low_rank(decoder, plan, phase.index)  # a phase without LoRA saves none
    require_same_masks(masks)
    if not splits:
        module = distribution.wrap(module, precision)
    # That a compiled block computes the same when it runs again is not tested.
    asked = recipe.model.reversible is None or recipe.runtime.compile is True
    if asked and choose_compile(recipe.runtime, device):
        for block in decoder.blocks:
            block.compile()
    batches = SequenceBatches(
        data.reader,
        device=device,
        rank=distribution.rank,
        world_size=distribution.world_size,
        micro_batch_sequences=1,
    )
    task = LanguageModelling(
        *(plan, data, distribution, phase, precision, decoder, module, batches),
        all_masks=masks,
        masks=place_masks(masks, decoder),
        moving=MovingMasks(plan),
        products=MaskedProducts(
            decoder, wanted_products(recipe.runtime, device), precision, device
        ),
        adaptation=None if adaptation is None else adaptation.record(),
    )
    task.set_batches()
    return task


def require_memory(planned: Memory, device: torch.device, limit: int | None = None) -> None:
    """Raise SetupError where weights, gradients and moments alone exceed a processor's memory.

    The system grants more memory than there is, and kills the process without a message when the
    memory is used. ``limit`` is in bytes; None means the machine's memory.
    """
    limit = limit or memory_bytes()
    needed = planned.weights_bytes + planned.gradients_bytes + planned.optimizer_bytes
    if device.type == "cpu" and limit is not None and needed > limit:
        raise SetupError(
            f"not enough memory: weights, gradients and moments take {needed / 1e9:,.3g} GB",
            found=f"{limit / 1e9:,.3g} GB on this machine",
            do="use a larger machine or a smaller model; see what one takes: feldspar plan RECIPE",
        )


@torch.no_grad()
def carry_over(
    before: Mapping[str, Tensor | LastRows], after: Mapping[str, Tensor | LastRows]
) -> None:
    """Copy moments and step counts of parameters that stay in training."""
    for name, tensor in after.items():
        if name in before:
            local_part(tensor)[0].copy_(local_part(before[name])[0])


def set_trainable(model: nn.Module, trained: Iterable[ParameterRow]) -> bool:
    """Let only the ``trained`` parameters require gradients; return whether any changed."""
    chosen = {row.name for row in trained}
    changed = False
    for name, parameter in model.named_parameters():
        if parameter.requires_grad != (name in chosen):
            parameter.requires_grad_(name in chosen)
            changed = True
    return changed
