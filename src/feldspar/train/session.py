"""Everything a run computes with: processes, device, model, task, optimizer of the phase."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from feldspar.adapt.embeddings import Adaptation
from feldspar.core.errors import SetupError
from feldspar.core.memory import memory_bytes
from feldspar.model.decoder import Decoder
from feldspar.parametrization.application import apply, parameter_groups
from feldspar.plan.memory import Memory
from feldspar.plan.micro_batch import check_divides
from feldspar.plan.summary import Plan
from feldspar.plan.timeline import PhasePlan
from feldspar.recipe.sections.sparsity import Dense
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.device import autocast, choose_compile, choose_precision
from feldspar.runtime.distributed import Distribution, accumulate, unwrap
from feldspar.runtime.threads import set_threads
from feldspar.sparsity.masks import Masks
from feldspar.train.data import TrainingData, first_new_token
from feldspar.train.gradient_noise import GradientNoise
from feldspar.train.loop import StepRunner
from feldspar.train.micro_batch import choose_micro_batch
from feldspar.train.optimizer import Optimizer
from feldspar.train.soft_prompt import begin_soft_prompt
from feldspar.train.start import (
    place_masks,
    require_same_masks,
    start_weights,
    starting_masks,
)
from feldspar.train.task import LanguageModelling, LanguageModelLoss
from feldspar.train.trainable import set_trainable


@dataclass
class Session:
    """A model on its device with the optimizer of the current phase."""

    plan: Plan
    data: TrainingData
    distribution: Distribution
    precision: torch.dtype
    decoder: Decoder
    task: LanguageModelling
    runner: StepRunner
    phase: PhasePlan
    masks: Masks
    """Whole masks of the phase, for checkpoints; the runner has this process's part of them."""
    adaptation: Adaptation | None = None
    """What was done to the model that the run began with; None in a resumed one."""

    @property
    def model_state(self) -> dict[str, torch.Tensor]:
        """The parameters by name."""
        return dict(self.decoder.named_parameters())

    def enter_phase(self, phase: PhasePlan) -> None:
        """Switch to a phase: what is trained and masked, and whether moments are carried over."""
        settings = self.plan.recipe.phases[phase.index]
        if self.plan.recipe.sparsity(phase.index) == Dense():
            self.masks = self.runner.masks = Masks()
        self.decoder.scale_positions(self.plan.recipe.position_scaling(phase.index))
        vocab_size = self.data.shards.vocab_size
        begin_soft_prompt(self.decoder, self.plan.recipe, phase.index, vocab_size)
        changed = set_trainable(self.decoder, self.plan.trained[phase.index])
        if changed:
            self.task.module = self.distribution.wrap(unwrap(self.task.module), self.precision)
        rescaled = self.plan.tables[phase.index] != self.plan.tables[self.phase.index]
        if changed or rescaled or settings.optimizer_state == "fresh":
            before = self.runner.optimizer.state()
            self.runner.optimizer = build_optimizer(self.plan, self.data, self.decoder, phase)
            if settings.optimizer_state != "fresh":
                carry_over(before, self.runner.optimizer.state())
        self.begin_phase(phase)

    def begin_phase(self, phase: PhasePlan) -> None:
        """Settle what depends on what a phase trains and on how much of it a step has."""
        self.phase = phase
        self.task.average = self.plan.recipe.phases[phase.index].loss.average
        self.task.micro_batch_sequences = self._micro_batch(phase)
        noise = self.runner.noise
        first = self.plan.timeline.next_step(phase.start_position)
        if noise is not None and first is not None:
            noise.attach(self.decoder, self.masks.tensors)
            noise.require_groups(first, self.task.micro_batch_sequences)

    def _micro_batch(self, phase: PhasePlan) -> int:
        wanted = self.plan.recipe.runtime.micro_batch_sequences
        share = phase.largest_sequences // self.distribution.world_size
        if wanted != "auto":
            return min(wanted, share)

        def attempt(sequences: int) -> None:
            shape = (sequences, phase.context_length)
            tokens = torch.zeros(shape, dtype=torch.int64, device=self.distribution.device)
            # Copies exchange nothing, so that one which runs out of memory leaves none waiting.
            exchanges = self.distribution.kind != "ddp"
            try:
                with accumulate(self.task.module, last=exchanges):
                    with self.runner.autocast():
                        loss = self.task.module(tokens, tokens)
                    loss.backward()
            finally:
                self.runner.optimizer.zero_gradients()

        return choose_micro_batch(share, phase.context_length, self.distribution.device, attempt)


def build_session(
    plan: Plan,
    data: TrainingData,
    distribution: Distribution,
    phase: PhasePlan,
    start: Checkpoint | None,
    masks: Masks | None = None,
) -> Session:
    """A new model, ready for the first step of ``phase``.

    ``masks`` are those of a checkpoint that the weights will be filled from; without them the run
    begins, with the weights of ``start`` (what ``start_from`` names) and its own masks.
    """
    recipe = plan.recipe
    for item in plan.timeline.phases:
        for sequences in item.divisible_sequences if item.steering is None else ():
            check_divides(sequences, distribution.world_size, f"phases.{item.index}.batch")
    if distribution.shards == 1:
        require_memory(plan.memory(), distribution.device)
    set_threads(recipe.runtime)
    precision = choose_precision(recipe.runtime, distribution.device)
    adaptation = None
    decoder = Decoder(recipe.model, recipe.soft_prompt_length)
    apply(decoder, plan.table, recipe.seed)
    if masks is None:
        adaptation = start_weights(decoder, plan, data.shards, start)
        masks = starting_masks(plan, start, decoder)
        masks.apply_to_weights(decoder)
    require_same_masks(masks)
    decoder.scale_positions(recipe.position_scaling(phase.index))
    decoder.recompute_activations = recipe.runtime.activation_memory == "recompute"
    set_trainable(decoder, plan.trained[phase.index])
    module: nn.Module = LanguageModelLoss(decoder, data.shards.vocab_size)
    module = distribution.wrap(module.to(distribution.device), precision)
    if choose_compile(recipe.runtime, distribution.device):
        for block in decoder.blocks:
            block.compile()

    def forward_context() -> AbstractContextManager[object]:
        return autocast(distribution.device, precision)

    task = LanguageModelling(
        module,
        data.reader,
        device=distribution.device,
        rank=distribution.rank,
        world_size=distribution.world_size,
        micro_batch_sequences=1,
    )
    runner = StepRunner(
        task,
        build_optimizer(plan, data, decoder, phase),
        forward_context,
        recipe.seed,
        recipe.model.dropout > 0,
        decoder,
        place_masks(masks, decoder),
        None if recipe.noise_scale is None else GradientNoise(recipe.noise_scale, plan.timeline),
    )
    session = Session(
        plan, data, distribution, precision, decoder, task, runner, phase, masks, adaptation
    )
    session.begin_phase(phase)
    return session


def require_memory(planned: Memory, device: torch.device, limit: int | None = None) -> None:
    """Raise SetupError where weights, gradients and moments alone exceed a processor's memory.

    The system grants more memory than there is, and ends the process without a word when it is
    used. ``limit`` is in bytes; None: what the machine has.
    """
    limit = limit or memory_bytes()
    needed = planned.weights_bytes + planned.gradients_bytes + planned.optimizer_bytes
    if device.type == "cpu" and limit is not None and needed > limit:
        raise SetupError(
            f"not enough memory: weights, gradients and moments take {needed / 1e9:,.3g} GB",
            found=f"{limit / 1e9:,.3g} GB on this machine",
            do="use a larger machine or a smaller model; see what one takes: feldspar plan RECIPE",
        )


def build_optimizer(
    plan: Plan, data: TrainingData, decoder: Decoder, phase: PhasePlan
) -> Optimizer:
    """A fresh optimizer of what ``phase`` trains, by its table."""
    groups = parameter_groups(decoder, plan.tables[phase.index])
    first_row = 0
    if plan.recipe.phases[phase.index].trains_new_rows_only:
        first_row = first_new_token(data.shards)
    return Optimizer(groups, plan.recipe.optimizer_of(phase.index), first_row)


@torch.no_grad()
def carry_over(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    """Copy moments and step counts of parameters that stay in training."""
    for name, tensor in after.items():
        if name in before:
            tensor.copy_(before[name])
