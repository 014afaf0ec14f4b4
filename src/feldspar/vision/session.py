"""What a run on images computes with: network, average, task, optimizer of the phase."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from feldspar.parametrization.application import ParameterGroup
from feldspar.plan.timeline import PhasePlan
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.runtime.device import autocast, choose_precision
from feldspar.runtime.threads import set_threads
from feldspar.sparsity.masks import Masks
from feldspar.train.average import AVERAGE, WeightAverage, tensors_of
from feldspar.train.loop import StepRunner
from feldspar.train.optimizer import Optimizer
from feldspar.vision.images import LabelledImages
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.start import start_network
from feldspar.vision.task import Classification, ClassificationLoss


@dataclass
class VisionSession:
    """A network on its device with the optimizer of the current phase."""

    recipe: VisionRecipe
    precision: torch.dtype
    network: RevBiFPN
    average: WeightAverage[RevBiFPN] | None
    task: Classification
    runner: StepRunner
    phase: PhasePlan

    @property
    def model_state(self) -> dict[str, torch.Tensor]:
        """Weights and running statistics by name; those of the average too."""
        averaged = {} if self.average is None else tensors_of(self.average.model, AVERAGE)
        return tensors_of(self.network) | averaged

    @property
    def measured(self) -> RevBiFPN:
        """What validation measures: the average where there is one."""
        return self.network if self.average is None else self.average.model

    def enter_phase(self, phase: PhasePlan) -> None:
        """Switch to a phase: its moments are carried over or fresh."""
        if self.recipe.phases[phase.index].optimizer_state == "fresh":
            self.runner.optimizer = build_optimizer(self.network, self.recipe)
        self.phase = phase


def build_session(
    recipe: VisionRecipe,
    images: LabelledImages,
    device: torch.device,
    phase: PhasePlan,
    begins: bool,
) -> VisionSession:
    """A new network, ready for the first step of ``phase``.

    A run that ``begins`` has the weights of ``start_from``; else a checkpoint will fill them.
    """
    set_threads(recipe.runtime)
    precision = choose_precision(recipe.runtime, device)
    network = RevBiFPN(recipe.model, recipe.runtime.activation_memory, recipe.seed)
    if begins:
        start_network(network, recipe)
    network = network.to(device)
    average = None
    if recipe.average_weights is not None:
        average = WeightAverage(network, recipe.average_weights.decay)

    def forward_context() -> AbstractContextManager[object]:
        return autocast(device, precision)

    task = Classification(ClassificationLoss(network), recipe, images, device)
    runner = StepRunner(
        task,
        build_optimizer(network, recipe),
        forward_context,
        recipe.seed,
        uses_dropout=recipe.model.dropout > 0 or recipe.model.stochastic_depth > 0,
        model=network,
        masks=Masks(),
        average=average,
    )
    return VisionSession(recipe, precision, network, average, task, runner, phase)


def build_optimizer(network: nn.Module, recipe: VisionRecipe) -> Optimizer:
    """A fresh optimizer; kernels and matrices decay, norms and biases do not."""
    named = list(network.named_parameters())
    groups = []
    for decays in (True, False):
        members = [pair for pair in named if (pair[1].ndim > 1) == decays]
        names, parameters = zip(*members, strict=True)
        groups.append(ParameterGroup(names, parameters, 1.0, float(decays), 1.0))
    return Optimizer(groups, recipe.optimizer)
