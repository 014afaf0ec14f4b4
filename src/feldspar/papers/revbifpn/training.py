"""Training of any network on the images, steps and rates of a recipe, kept in no folder.

The plain networks beside RevBiFPN are trained here, with the parts of a run on images: its images,
augmentation, optimizer, schedule and average of the weights.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from feldspar.plan.timeline import build_timeline
from feldspar.recipe.load import load_vision_recipe
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.train.average import WeightAverage
from feldspar.train.task import seed_dropout
from feldspar.vision.data import ImageData
from feldspar.vision.image_task import build_optimizer
from feldspar.vision.measure import measure
from feldspar.vision.task import ClassificationLoss, ImageBatches

RECIPE = "revbifpn/sizes"


@dataclass(frozen=True)
class Trained:
    """A trained network with its losses."""

    network: nn.Module
    """The average of the weights."""
    losses: list[float]
    """The mean training loss of each step."""


def recipe_of(*overrides: str) -> VisionRecipe:
    """Return the recipe of the small sizes with overrides."""
    return load_vision_recipe(RECIPE, list(overrides)).recipe


def train_network(network: nn.Module, recipe: VisionRecipe, data: ImageData) -> Trained:
    """Train ``network`` in place, as a run of ``recipe`` trains its own."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    timeline = build_timeline(recipe, parameters, {"train": len(data.train)})
    optimizer, module = build_optimizer(network, recipe.optimizer), ClassificationLoss(network)
    assert recipe.average_weights is not None, "the recipe keeps an average"
    average = WeightAverage(network, recipe.average_weights.decay)
    batches = ImageBatches(recipe, data.train, torch.device("cpu"))
    losses, position = [], 0
    while (step := timeline.next_step(position)) is not None:
        batches.prefetch(step)
        [(images, targets)] = batches.take()
        seed_dropout(recipe.seed, position, 0)
        loss = module(images, targets) / len(images)
        loss.backward()
        optimizer.set_rates(step.learning_rate, step.weight_decay)
        optimizer.step(optimizer.gradient_norm())
        optimizer.zero_gradients()
        average.update(network)
        losses.append(float(loss.detach()))
        position = step.position_after
    batches.close()
    return Trained(average.model, losses)


def held_out(network: nn.Module, recipe: VisionRecipe, data: ImageData) -> dict[str, float]:
    """Return the measures of a network on the held-out images."""
    phase, device = recipe.phases[-1], torch.device("cpu")
    size, images = phase.resolution, phase.batch.images
    return measure(network, data.validation, recipe, size, images, device, nullcontext)
