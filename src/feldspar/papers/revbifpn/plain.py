"""Plain networks that could embarrass a RevBiFPN: a few convolutions, and logistic regression.

For each size there is a plain network with no more multiply-adds, which sees as many images.
"""

from typing import Any

import torch
from torch import nn

from feldspar.papers.revbifpn.training import held_out, recipe_of, train_network
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.data import ImageData
from feldspar.vision.network_cost import multiply_adds_of
from feldspar.vision.revbifpn import initialise

WIDTHS = {"T0": (12, 24, 48), "T1": (12, 24, 48), "T2": (24, 48, 96)}
"""Channels of the three convolutions of the plain network beside each size."""
LOGISTIC = "logistic regression"
RATES = {"plain": (0.05, 0.1, 0.2, 0.4), LOGISTIC: (0.003, 0.01, 0.03, 0.1)}
"""Learning rates that are tried with a seed of their own."""
QUICK_RATES = {"plain": 0.1, LOGISTIC: 0.01}
TUNED_SIZE = "T1"
"""The size beside which the rates of plain networks are tried."""


def plain_name(size: str) -> str:
    """Return the name of the plain network beside a size."""
    return f"plain {size}"


def plain_network(size: str, recipe: VisionRecipe) -> nn.Sequential:
    """Return three convolutions of stride 2 with batch norm and ReLU, a mean, and a classifier."""
    layers: list[nn.Module] = []
    channels = recipe.model.image_channels
    for width in WIDTHS[size]:
        convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    classifier = nn.Linear(channels, recipe.model.classes)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)


def logistic_regression(recipe: VisionRecipe) -> nn.Sequential:
    """Return a classifier of the pixels."""
    pixels = recipe.model.image_channels * recipe.phases[-1].resolution ** 2
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, recipe.model.classes))


def network_of(name: str, recipe: VisionRecipe) -> nn.Module:
    """Return the network of a row of the table, with the initial values of the recipe's seed."""
    size = name.removeprefix("plain ")
    network = plain_network(size, recipe) if size in WIDTHS else logistic_regression(recipe)
    initialise(network, recipe.seed)
    return network


def plain_figures(
    data: ImageData, seeds: range, tuning_seed: int | None, shortened: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures of each plain network, and the losses by learning rate.

    Without ``tuning_seed`` the rates are those of a quick run.
    """
    found: dict[str, Any] = {}
    tried: dict[str, Any] = {}
    rates = dict(QUICK_RATES)
    for kind, choices in RATES.items():
        if tuning_seed is None:
            continue
        name = plain_name(TUNED_SIZE) if kind == "plain" else kind
        losses = [
            trained(name, TUNED_SIZE, rate, tuning_seed, data, shortened)["validation/loss"]
            for rate in choices
        ]
        tried[kind] = [
            {"rate": rate, "loss": loss} for rate, loss in zip(choices, losses, strict=True)
        ]
        rates[kind] = choices[losses.index(min(losses))]
    beside = {plain_name(size): (size, "plain") for size in WIDTHS}
    for name, (size, kind) in (beside | {LOGISTIC: (TUNED_SIZE, LOGISTIC)}).items():
        recipe = recipe_of(f"choose.size={size}")
        network = network_of(name, recipe)
        pixels = recipe.phases[-1].resolution
        runs = [trained(name, size, rates[kind], seed, data, shortened) for seed in seeds]
        found[name] = {
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "multiply_adds": multiply_adds_of(network, torch.zeros(1, 1, pixels, pixels)).total,
            "rate": rates[kind],
            "accuracy": [run["validation/top1"] for run in runs],
        }
    return found, tried


def trained(
    name: str, size: str, rate: float, seed: int, data: ImageData, shortened: tuple[str, ...]
) -> dict[str, float]:
    """Return the held-out measures of a plain network, trained as the size beside it."""
    recipe = recipe_of(
        f"choose.size={size}", f"seed={seed}", f"parametrization.learning_rate={rate}", *shortened
    )
    return held_out(train_network(network_of(name, recipe), recipe, data).network, recipe, data)
