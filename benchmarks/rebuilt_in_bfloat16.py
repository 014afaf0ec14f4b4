"""Gradients of rebuilt activations against those of stored ones, in float32 and under bfloat16.

Each figure is the length of a difference as a share of the second gradient's length. On the grid of
fixed-point streams the two are compared bit for bit. Run:

    python benchmarks/rebuilt_in_bfloat16.py
"""

from pathlib import Path

import torch
from torch import Tensor

from feldspar.core.json_files import write_json
from feldspar.core.machine import machine
from feldspar.recipe.sections.vision import RevBiFPNSettings
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.task import ClassificationLoss

RESULTS = Path(__file__).parent / "results" / "rebuilt_in_bfloat16.json"
IMAGES, PIXELS, CLASSES, GRID = 16, 32, 4, 14
EXTRA_SILOS = (1, 4, 12)


def main() -> None:
    """Print a line for each depth, and write the result."""
    rows = [{"extra silos": silos} | figures(silos) for silos in EXTRA_SILOS]
    for row in rows:
        print(", ".join(f"{name}: {value:.2g}" for name, value in row.items()))
    write_json(RESULTS, {"machine": machine(), "rows": rows})


def figures(silos: int) -> dict[str, float | bool]:
    """Return the differences of a network with so many extra silos."""
    stored, rebuilt = (gradient(memory, silos, False, None) for memory in ("store", "reversible"))
    narrow, narrow_rebuilt = (
        gradient(memory, silos, True, None) for memory in ("store", "reversible")
    )
    grid, grid_rebuilt = (gradient(memory, silos, True, GRID) for memory in ("store", "reversible"))
    return {
        "float32, rebuilt from stored": distance(rebuilt, stored),
        "bfloat16, rebuilt from stored": distance(narrow_rebuilt, narrow),
        "stored, bfloat16 from float32": distance(narrow, stored),
        "bfloat16 on the grid, equal bits": torch.equal(grid_rebuilt, grid),
    }


def gradient(memory: ActivationMemory, silos: int, narrow: bool, bits: int | None) -> Tensor:
    """Return the gradients of all parameters in float64, one after the other."""
    settings = RevBiFPNSettings(
        channels=(16, 24, 32),
        neck_channels=(16, 24, 32),
        head_width=32,
        classes=CLASSES,
        image_channels=1,
        residual_layers=1,
        extra_silos=silos,
        fixed_point_bits=bits,
    )
    network = RevBiFPN(settings, memory)
    shape = (IMAGES, 1, PIXELS, PIXELS)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    targets = torch.eye(CLASSES).repeat(IMAGES // CLASSES, 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        loss = ClassificationLoss(network)(images, targets)
    loss.backward()
    found = [p.grad.flatten().double() for p in network.parameters() if p.grad is not None]
    return torch.cat(found)


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the length of the difference as a share of the expected vector's length."""
    return float((found - expected).norm() / expected.norm())


if __name__ == "__main__":
    main()
