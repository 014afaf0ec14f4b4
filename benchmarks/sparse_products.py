"""Sparse products of masked matrices against the masked dense products of torch.

For each shape and mask: the forward product, the two products of the backward pass, and all three,
with ``SparseLinear`` (what a run uses) and with ``F.linear``. Beside them torch's own sparse
formats, which have a forward product only: CSR, and BSR where the mask has square blocks.
Contenders take turns, and the one that begins changes from turn to turn. Each ratio is that of two
turns beside each other; the median counts. ``dense, again`` is the dense product once more: the
distance of its ratio from 1 is what the measurement cannot tell apart. Gradients are compared with
the dense ones before anything is timed. Run:

    python benchmarks/sparse_products.py [--threads 2]
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.core.machine import processor
from feldspar.papers.kit.turns import rotated
from feldspar.sparsity.kernels.compiled import compiled
from feldspar.sparsity.kernels.linear import SparseLinear
from feldspar.sparsity.masks import draw_mask

RESULTS = Path(__file__).parent / "results" / "sparse_products.json"
SHAPES = [(1536, 512), (512, 512), (2048, 512), (512, 2048)]
"""(outputs, inputs) of the block matrices of a model of d 512."""
MASKS = [
    (sparsity, block) for block in ((1, 1), (4, 1), (4, 4)) for sparsity in (0.5, 0.75, 0.875, 0.95)
]
DENSE, SPARSE, AGAIN = "dense", "sparse", "dense, again"
PARTS = ("forward", "backward", "all")

Work = Callable[[], object]


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=12, help="turns of each contender")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kernels = compiled()
    if kernels is None:
        print("nothing measured: llvmlite is absent, or the processor has no fast vectors")
        return
    warnings.filterwarnings("ignore", message="Sparse")  # torch: its CSR is a beta
    result: dict[str, Any] = {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "torch": torch.__version__,
            "lanes": kernels.registers.lanes,
            "load_before": os.getloadavg(),
        },
        "tokens": options.tokens,
        "threads": options.threads,
        "products": [],
    }
    for sparsity, block in MASKS:
        for shape in SHAPES:
            measured = measure(shape, sparsity, block, options)
            result["products"].append(measured)
            print(line(measured), flush=True)
    result["machine"]["load_after"] = os.getloadavg()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(
    shape: tuple[int, int], sparsity: float, block: tuple[int, int], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the speeds over dense for one matrix."""
    kernels = compiled()
    assert kernels is not None
    mask = draw_mask("matrix", shape, sparsity, 0, block=block)
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=draw).mul_(mask).requires_grad_()
    x = torch.randn(options.tokens, shape[1], generator=draw).requires_grad_()
    gradient = torch.randn(options.tokens, shape[0], generator=draw)
    sparse = SparseLinear(mask, kernels)
    require_equal_gradients(sparse, x, weight, gradient, mask)
    found = {
        part: speeds(seconds)
        for part, seconds in three_parts(sparse, x, weight, gradient, options).items()
    }
    plain = weight.detach()
    formats: dict[str, Work] = {"CSR": product_of(plain.to_sparse_csr(), x)}
    if block[0] == block[1] > 1:  # torch multiplies no others on a processor
        formats["BSR"] = product_of(plain.to_sparse_bsr(block), x)
    dense = {DENSE: lambda: F.linear(x.detach(), plain)}
    peers = speeds(take_turns({**dense, **formats}, options))
    return {
        "shape": list(shape),
        "sparsity": sparsity,
        "block": list(block),
        "kept": int(mask.sum()),
        **found,
        "torch's formats, forward": {name: peers[name] for name in formats},
    }


def product_of(matrix: Tensor, x: Tensor) -> Work:
    """Return the forward product of a matrix in one of torch's sparse formats."""
    columns = x.detach().T.contiguous()
    return lambda: matrix @ columns


def require_equal_gradients(
    sparse: SparseLinear, x: Tensor, weight: Tensor, gradient: Tensor, mask: Tensor
) -> None:
    """Compare with the masked dense gradients: a relative difference of 1e-5 at most."""
    pairs = zip(
        torch.autograd.grad(sparse(x, weight, None), (x, weight), gradient),
        torch.autograd.grad(F.linear(x, weight), (x, weight), gradient),
        strict=True,
    )
    for place, (own, other) in enumerate(pairs):
        expected = other * mask if place == 1 else other
        assert float((own - expected).abs().max() / expected.abs().max()) < 1e-5


def three_parts(
    sparse: SparseLinear, x: Tensor, weight: Tensor, gradient: Tensor, options: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each turn by part and contender."""
    contenders: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        DENSE: F.linear,
        SPARSE: lambda a, b: sparse(a, b, None),
        AGAIN: F.linear,
    }
    seconds = {part: {name: [] for name in contenders} for part in PARTS}
    clock = clock_of(options.threads)
    names = list(contenders)
    for turn in range(-2, options.turns):
        for name in rotated(names, turn):
            begin = clock()
            out = contenders[name](x, weight)
            middle = clock()
            torch.autograd.grad(out, (x, weight), gradient)
            end = clock()
            if turn >= 0:  # the first two turns warm up
                for part, value in zip(
                    PARTS, (middle - begin, end - middle, end - begin), strict=True
                ):
                    seconds[part][name].append(value)
    return seconds


def take_turns(work: dict[str, Work], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of each turn by contender."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    clock, names = clock_of(options.threads), list(work)
    for turn in range(-1, options.turns // 2):
        for name in rotated(names, turn):
            begin = clock()
            work[name]()
            if turn >= 0:
                seconds[name].append(clock() - begin)
    return seconds


def clock_of(threads: int) -> Callable[[], float]:
    """Return the processor's time for one thread, which other work does not change, else time."""
    return time.process_time if threads == 1 else time.perf_counter


def speeds(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return the speed of each contender over dense in the same turn: median and quartiles."""
    figures: dict[str, Any] = {"dense_ms": 1e3 * statistics.median(seconds[DENSE])}
    for name, own in seconds.items():
        if name == DENSE:
            continue
        ratios = [theirs / mine for theirs, mine in zip(seconds[DENSE], own, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        figures[name] = {"median": median, "quartiles": [low, high]}
    return figures


def line(measured: dict[str, Any]) -> str:
    """Return one matrix as text."""
    own = ", ".join(f"{part} {measured[part][SPARSE]['median']:.2f}" for part in PARTS)
    peers = ", ".join(
        f"{name} {figures['median']:.2f}"
        for name, figures in measured["torch's formats, forward"].items()
    )
    rows, columns = measured["shape"]
    size = "x".join(map(str, measured["block"]))
    return (
        f"{measured['sparsity']:5.1%} {size}  {rows:4} x {columns:4}: {own} times dense "
        f"(itself {measured['all'][AGAIN]['median']:.2f}); torch, forward: {peers}"
    )


if __name__ == "__main__":
    main()
