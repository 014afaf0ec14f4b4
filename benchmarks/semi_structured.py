"""2:4 products on a card against dense ones.

For each shape of a matrix the script times the forward product and a whole step (forward product,
gradient of the input, gradient of the weight) with the masked dense weight, with the 2:4 product,
and with the masked dense weight once more, which shows the variation of the measurement itself. The
three take turns in an order that rotates. A time includes the compression of the weight, which
training does in each step. The script needs a card with 2:4 kernels; without one it says so and
measures nothing:

    python benchmarks/semi_structured.py
"""

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.papers.kit.turns import rotated
from feldspar.sparsity.semi_structured import device_refusal, make_product

RESULTS = Path(__file__).parent / "results" / "semi_structured.json"
SHAPES = [(1536, 512), (2048, 512), (512, 2048), (3072, 1024), (4096, 4096), (11008, 4096)]
"""(out, in) of block matrices from d 512 to d 4096."""
DENSE, SPARSE, AGAIN = "dense", "2:4", "dense, again"

Product = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--turns", type=int, default=30, help="turns of each contender")
    parser.add_argument("--products", type=int, default=10, help="products a turn")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reason = device_refusal(device)
    if reason is not None:
        print(f"nothing measured: {reason}")
        return
    result: dict[str, Any] = {
        "machine": {
            "card": torch.cuda.get_device_name(),
            "system": platform.platform(),
            "torch": torch.__version__,
        },
        "tokens": options.tokens,
        "precision": "bfloat16",
        "shapes": {},
    }
    for shape in SHAPES:
        measured = measure(shape, options)
        result["shapes"]["x".join(map(str, shape))] = measured
        for name, ratios in measured.items():
            print(
                f"{shape!s:14}{name:10}2:4 {ratios[SPARSE]['median']:5.2f} times dense, "
                f"dense itself {ratios[AGAIN]['median']:5.2f}",
                flush=True,
            )
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(shape: tuple[int, int], options: argparse.Namespace) -> dict[str, Any]:
    """Return the speeds over dense of one shape, for the forward product and for a step."""
    n_out, n_in = shape
    torch.manual_seed(0)
    mask = (torch.rand(n_out, n_in // 4, 4, device="cuda").argsort() < 2).view(n_out, n_in)
    weight = (torch.randn(n_out, n_in, device="cuda") / n_in**0.5 * mask).bfloat16()
    x = torch.randn(options.tokens, n_in, device="cuda").bfloat16()
    gradient = torch.randn(options.tokens, n_out, device="cuda").bfloat16()
    sparse: Product = make_product(mask, torch.bfloat16, weight.device)
    products: dict[str, Product] = {DENSE: F.linear, SPARSE: sparse, AGAIN: F.linear}
    figures = {}
    for name, wants_gradients in (("forward", False), ("step", True)):
        own_x, own_weight = (one.clone().requires_grad_(wants_gradients) for one in (x, weight))
        work: dict[str, Callable[[], None]] = {
            contender: partial(run, product, own_x, own_weight, gradient)
            for contender, product in products.items()
        }
        figures[name] = speeds(take_turns(work, options))
    return figures


def run(product: Product, x: Tensor, weight: Tensor, gradient: Tensor) -> None:
    """Compute the product once, and its gradients if ``weight`` wants one."""
    found = product(x, weight)
    if weight.requires_grad:
        torch.autograd.grad(found, (x, weight), gradient)


def take_turns(
    work: dict[str, Callable[[], None]], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the milliseconds of each turn; who begins changes from turn to turn."""
    times: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    for turn in range(-2, options.turns):
        for name in rotated(names, turn):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(options.products):
                work[name]()
            end.record()
            end.synchronize()
            if turn >= 0:  # the first two turns warm up
                times[name].append(begin.elapsed_time(end))
    return times


def speeds(times: dict[str, list[float]]) -> dict[str, Any]:
    """Return the speed of each contender over dense in the same turn: median and range."""
    figures: dict[str, Any] = {"dense_ms": statistics.median(times[DENSE])}
    for name in (SPARSE, AGAIN):
        ratios = [theirs / own for theirs, own in zip(times[DENSE], times[name], strict=True)]
        figures[name] = {"median": statistics.median(ratios), "range": [min(ratios), max(ratios)]}
    return figures


if __name__ == "__main__":
    main()
