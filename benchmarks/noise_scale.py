"""What per-example gradient norms cost: step time with and without, and peak memory.

Contenders take turns with an untracked step on the same network in one process, one thread; the
figure is the median of the ratios of processor time. Memory is the peak of a process of its own.
Opacus is compared where it is installed (pip install opacus). Run:

    python benchmarks/noise_scale.py
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from contenders.per_example import (
    Step,
    decoder_loss,
    opacus_step,
    plain_loss,
    tracked,
    untracked,
    vmap_step,
)
from feldspar.core.execution import available_cores
from feldspar.core.machine import processor
from feldspar.runtime.allocator import keep_freed_pages

RESULTS = Path(__file__).parent / "results" / "noise_scale.json"
SHAPES = {
    "d 512, 512 tokens": (2, 512, 2048, 512, 4),
    "d 256, 128 tokens": (2, 256, 2048, 128, 16),
    "d 64, 64 tokens": (4, 64, 2048, 64, 32),
}
NAMES = ("n_layers", "d_model", "vocab_size", "length", "sequences")
CONTENDERS = (
    "decoder, norms",
    "decoder, all layers",
    "plain network, norms",
    "plain network, all layers",
    "Opacus, per-sample gradients",
    "Opacus, ghost norms",
    "torch.func.vmap",
)
PLAIN = {"decoder": "decoder, untracked", "network": "plain network, untracked"}
BOUNDS = {"norms": 1.01, "all layers": 1.25}
"""What we promise of the first shape."""


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="turns of each contender")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the shapes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(json.dumps(peak_of(*options.memory)))
        return
    keep_freed_pages()
    result: dict[str, Any] = {
        "machine": {
            "processor": processor(),
            "cores": available_cores(),
            "system": platform.platform(),
            "torch": torch.__version__,
            "pairs": options.pairs,
        },
        "bounds_at_the_first_shape": BOUNDS,
        "shapes": {},
    }
    for shape_name in [*SHAPES][: options.shapes]:
        rows: dict[str, Any] = {}
        for contender in CONTENDERS:
            try:
                rows[contender] = measure(contender, shape_name, options.pairs)
            except ImportError as error:
                rows[contender] = {"absent": str(error)}
            print(f"{shape_name}: {contender}: {rows[contender]}", flush=True)
        result["shapes"][shape_name] = dict(zip(NAMES, SHAPES[shape_name], strict=True)) | rows
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(contender: str, shape_name: str, pairs: int) -> dict[str, Any]:
    """Time ratio to an untracked step, its quartiles, seconds, and memory beyond the plain step."""
    plain = PLAIN["decoder" if contender.startswith("decoder") else "network"]
    reference, step = step_of(plain, shape_name), step_of(contender, shape_name)
    for warm_up in (reference, step):
        warm_up()
    ratios, seconds = [], []
    for index in range(pairs):
        # Each goes first every other time, so that neither always finds a warm cache.
        first, second = (reference, step) if index % 2 else (step, reference)
        times = {id(each): processor_seconds(each) for each in (first, second)}
        ratios.append(times[id(step)] / times[id(reference)])
        seconds.append(times[id(reference)])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "time_ratio": round(middle, 4),
        "quartiles": [round(low, 4), round(high, 4)],
        "plain_seconds": round(statistics.median(seconds), 4),
        "peak_megabytes": peak_in_a_process(contender, shape_name),
        "plain_peak_megabytes": peak_in_a_process(plain, shape_name),
    }


def step_of(contender: str, shape_name: str) -> Step:
    """A step of the contender on a network of its own."""
    shape = dict(zip(NAMES, SHAPES[shape_name], strict=True))
    torch.manual_seed(0)
    network, _, way = contender.partition(", ")
    if contender == "torch.func.vmap":
        return vmap_step(shape)
    if network == "Opacus":
        return opacus_step(shape, ghost=way == "ghost norms")
    model, loss = decoder_loss(shape) if network == "decoder" else plain_loss(shape)
    if way == "untracked":
        return untracked(model, loss)
    coverage = "norm" if way == "norms" else "all"
    return tracked(model, loss, coverage, shape["sequences"])


def processor_seconds(step: Step) -> float:
    """Of one step."""
    start = time.process_time()
    step()
    return time.process_time() - start


def peak_of(contender: str, shape_name: str) -> float:
    """Peak memory of this process in megabytes, after two steps."""
    step = step_of(contender, shape_name)
    step()
    step()
    # Not getrusage: its maximum outlives exec, so it would be this process's parent's.
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return round(int(line.split()[1]) / 1024, 1)


@cache
def peak_in_a_process(contender: str, shape_name: str) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--memory", contender, shape_name]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(found.stdout))


if __name__ == "__main__":
    main()
