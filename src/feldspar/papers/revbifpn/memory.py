"""Memory that training takes for each image, counted on the meta device and held by a real step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from feldspar.papers.revbifpn.efficientnet import SIZES as EFFICIENTNETS
from feldspar.papers.revbifpn.efficientnet import efficientnet_shapes
from feldspar.recipe.sections.vision import SIZES, RevBiFPNSettings, revbifpn_settings
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.network_cost import (
    count_multiply_adds,
    measured_step,
    multiply_adds_of,
    shapes_of,
)
from feldspar.vision.revbifpn import RevBiFPN

CLASSES, CHANNELS = 1000, 3
FEW, MANY = 4, 8
"""Images of two steps, whose difference is what each further image takes."""
DEPTHS = (2, 6, 16)
"""Extra silos of a backbone with the widths of S0."""
REAL_PIXELS, REAL_IMAGES = 64, 2
"""Shape of a step that is taken with values."""
MODES: tuple[ActivationMemory, ...] = ("reversible", "store")


def memory_figures() -> dict[str, Any]:
    """Return parameters, multiply-adds and bytes of each size and of EfficientNet B0 to B7."""
    found = {}
    for size, (pixels, _) in SIZES.items():
        network = shapes_of(revbifpn_settings(size))
        work = count_multiply_adds(network, pixels, pixels)
        found[size] = counted(network, pixels, work.total) | {
            "paper_multiply_adds": work.paper_total,
            "stored": bytes_an_image(shapes_of(revbifpn_settings(size), "store"), pixels)[1],
        }
    for size, (*_, pixels, _) in EFFICIENTNETS.items():
        network = efficientnet_shapes(size)
        found[size] = counted(network, pixels, multiply_adds_of(network, image(pixels)).total)
    return found


def counted(network: nn.Module, pixels: int, multiply_adds: int) -> dict[str, int]:
    """Return the counts of one network."""
    saved, alive = bytes_an_image(network, pixels)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {
        "pixels": pixels,
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "saved": saved,
        "alive": alive,
    }


def bytes_an_image(network: nn.Module, pixels: int) -> tuple[int, int]:
    """Return the bytes saved for the backward pass, and all that are alive, for a further image.

    Both are taken at their most. What a step needs whatever its images, such as a gradient on its
    way to its parameter, is no part of them.
    """
    few, many = (measured_step(network, image(pixels, count), CLASSES) for count in (FEW, MANY))
    saved, alive = ((large - small) // (MANY - FEW) for small, large in zip(few, many, strict=True))
    return saved, alive


def image(pixels: int, count: int = 1) -> torch.Tensor:
    """Return images without values."""
    return torch.empty((count, CHANNELS, pixels, pixels), device="meta")


def depth_figures() -> dict[str, Any]:
    """Return the bytes of S0's backbone by depth: counted an image, and held by a real step."""
    pixels = SIZES["S0"][0]

    def by_mode(measure: Callable[[int, ActivationMemory], int]) -> dict[str, list[int]]:
        return {mode: [measure(depth, mode) for depth in DEPTHS] for mode in MODES}

    return {
        "extra_silos": list(DEPTHS),
        "counted": by_mode(lambda n, mode: bytes_an_image(shapes_of(deep(n), mode), pixels)[1]),
        "planned_step": by_mode(lambda n, mode: step_bytes(shapes_of(deep(n), mode), "meta")),
        "real_step": by_mode(lambda n, mode: step_bytes(RevBiFPN(deep(n), mode), "cpu")),
    }


def deep(extra_silos: int) -> RevBiFPNSettings:
    """Return S0 with another number of silos."""
    base = revbifpn_settings("S0")
    return base.model_copy(update={"extra_silos": extra_silos})


def step_bytes(network: RevBiFPN, device: str) -> int:
    """Return the bytes that a step of a few small images holds at its worst moment."""
    images = torch.zeros((REAL_IMAGES, CHANNELS, REAL_PIXELS, REAL_PIXELS), device=device)
    return measured_step(network, images, CLASSES)[1]
