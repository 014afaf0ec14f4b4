"""Gradients, losses and times of a RevBiFPN that rebuilds activations, and of one that stores them.

The two are one network with the same initial values; only ``RevBiFPN.memory`` differs.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from feldspar.papers.kit.turns import seconds_in_turn
from feldspar.papers.revbifpn.training import recipe_of, train_network
from feldspar.recipe.sections.vision import ClassificationTask, revbifpn_settings
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.data import ImageData
from feldspar.vision.loader import TrainingImages
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.task import ClassificationLoss, normalisation, smoothed_targets

GRID = 14
"""Bits after the point of fixed-point streams."""
DEEP = ("choose.size=T2", "model.extra_silos=6", "model.dropout=0")
"""The network whose gradients are compared: eight silos, and no random numbers."""
GRADIENT_IMAGES = 32
MODES: dict[str, ActivationMemory] = {"stored": "store", "rebuilt": "reversible"}
TIMED_IMAGES = 2
CONTROL = "stored again"


def gradient_figures(data: ImageData, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Return distances of gradients by seed, as shares of the stored gradient's length.

    ``rounding`` is that of the stored float32 gradient from the one in float64. The others are
    those of the rebuilt gradient from the stored one, in float32, in float64 and on the grid.
    """
    found: dict[str, list[float]] = {"rounding": [], "float32": [], "float64": [], "grid": []}
    settings = recipe_of(*DEEP).model
    on_grid = settings.model_copy(update={"fixed_point_bits": GRID})
    for seed in seeds:
        batch = first_images(data, seed)
        stored, rebuilt, stored_on_grid, rebuilt_on_grid, exact, exactly_rebuilt = (
            gradient_of(RevBiFPN(shape, memory, seed).to(dtype), batch, dtype)
            for shape, dtype in (
                (settings, torch.float32),
                (on_grid, torch.float32),
                (settings, torch.float64),
            )
            for memory in MODES.values()
        )
        found["rounding"].append(distance(stored, exact))
        found["float32"].append(distance(rebuilt, stored))
        found["float64"].append(distance(exactly_rebuilt, exact))
        found["grid"].append(distance(rebuilt_on_grid, stored_on_grid))
    return found


def gradient_of(network: RevBiFPN, batch: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    """Return the gradients of all parameters in float64, one after the other."""
    ClassificationLoss(network)(*(tensor.to(dtype) for tensor in batch)).backward()
    own = [p.grad for p in network.parameters() if p.grad is not None]
    return torch.cat([gradient.flatten().double() for gradient in own])


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the length of the difference as a share of the expected vector's length."""
    return float((found - expected).norm() / expected.norm())


def first_images(data: ImageData, seed: int) -> tuple[Tensor, Tensor]:
    """Return normalised images (b, 1, r, r) and targets (b, classes) that a run begins with."""
    recipe = recipe_of(*DEEP, f"seed={seed}")
    training = TrainingImages(data.train, recipe.augmentation, recipe.seed)
    read = [training.read(index, recipe.phases[0].resolution) for index in range(GRADIENT_IMAGES)]
    pixels, labels = zip(*read, strict=True)
    assert isinstance(recipe.task, ClassificationTask), "its recipe classifies"
    targets = smoothed_targets(
        torch.tensor(labels), recipe.model.classes, recipe.task.label_smoothing
    )
    return normalisation(recipe)(torch.stack(pixels)), targets


def curve_figures(data: ImageData, seeds: Sequence[int], steps: int) -> dict[str, Any]:
    """Return the training losses by seed and step, stored and rebuilt, off and on the grid."""
    found: dict[str, list[list[float]]] = {}
    for place, grid in (("", ()), (" on the grid", (f"model.fixed_point_bits={GRID}",))):
        for name, memory in MODES.items():
            found[name + place] = []
            for seed in seeds:
                recipe = recipe_of(*grid, f"seed={seed}", f"phases.0.length={steps} steps")
                network = RevBiFPN(recipe.model, memory, seed)
                found[name + place].append(train_network(network, recipe, data).losses)
    return found


def time_figures(turns: int, pixels: int) -> dict[str, list[float]]:
    """Return the processor seconds of forward and backward passes of S0, in turns.

    The stored network takes part twice, as a control.
    """
    settings = revbifpn_settings("S0")
    images = torch.randn((TIMED_IMAGES, 3, pixels, pixels), generator=torch.Generator())
    targets = torch.full((TIMED_IMAGES, settings.classes), 1 / settings.classes)
    modes: Mapping[str, ActivationMemory] = MODES | {CONTROL: "store"}
    steps = {
        name: partial(_seconds, ClassificationLoss(RevBiFPN(settings, memory)), images, targets)
        for name, memory in modes.items()
    }
    return seconds_in_turn(steps, turns)


def _seconds(loss: ClassificationLoss, images: Tensor, targets: Tensor) -> float:
    began = time.process_time()
    loss(images, targets).backward()
    taken = time.process_time() - began
    loss.zero_grad()
    return taken
