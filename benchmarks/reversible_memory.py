"""Memory and time of stored, recomputed and reversible activations: a decoder and a RevBiFPN.

Memory is the most that a training step keeps alive beyond weights and gradients, by the sizes of
all living tensors on the processor: it has no noise, and what a library allocates inside one
operation is no part of it. It is measured against depth, and against context or resolution. The
script fails where the memory of a reversible network grows by more than a twentieth from the
smallest depth to the largest.

Time is the processor time of one thread for a forward and backward pass. The ways take turns, the
one that begins changes, and ``stored, again`` is the first way a second time: how far its ratio is
from 1 is what the measurement cannot tell apart. Run:

    python benchmarks/reversible_memory.py
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from feldspar.core.files import write_atomically
from feldspar.core.json_files import write_json
from feldspar.core.machine import machine
from feldspar.model.decoder import Decoder
from feldspar.papers.kit.turns import seconds_in_turn
from feldspar.plan.storage_bytes import peak_bytes
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.vision import RevBiFPNSettings
from feldspar.report.figures import Panel, Series, panel_figure
from feldspar.reversible.chain import ActivationMemory
from feldspar.runtime.allocator import keep_freed_pages
from feldspar.vision.network_cost import measured_step
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.task import ClassificationLoss

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reversible_memory.json"
FIGURE = ROOT / "docs" / "methods" / "reversible.svg"

DEPTHS = (4, 8, 16, 32)
FLAT = 1.05
"""The most that the largest depth may take of what the smallest takes."""

DECODER = {
    "d_model": 64,
    "n_heads": 4,
    "d_ff": 172,
    "vocab_size": 512,
    "max_sequence_length": 2048,
    "positions": "rotary",
    "feed_forward": "swiglu",
}
SEQUENCES, CONTEXT, CONTEXTS, CONTEXT_DEPTH = 4, 128, (64, 128, 256, 512), 8
DECODERS: dict[str, tuple[str | bool, ActivationMemory]] = {
    "stored": (False, "store"),
    "recomputed": (False, "recompute"),
    "reversible (revnet)": ("revnet", "reversible"),
    "reversible (reformer)": ("reformer", "reversible"),
}

REVBIFPN: dict[str, Any] = {
    "channels": (48, 64, 80),
    "neck_channels": (48, 64, 80),
    "head_width": 80,
    "residual_layers": 1,
}
"""The three finest streams of S0, with fewer residual layers."""
IMAGES, PIXELS, RESOLUTIONS, RESOLUTION_SILOS, CLASSES = 2, 64, (32, 64, 96, 128), 4, 10
NETWORKS: dict[str, ActivationMemory] = {
    "stored": "store",
    "recomputed": "recompute",
    "reversible": "reversible",
}
TIMED_DEPTH, TIMED_SILOS = 8, 4
AGAIN = "stored, again"

TITLE = "Memory of a training step: reversible blocks need the same at every depth"
Table = dict[str, list[int]]
"""Bytes of each way, by the values of an axis."""


def main() -> None:
    """Measure, print the tables, write record and figure; fail where the memory is not flat."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=12, help="timed passes of each way")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_pages()
    load_before = os.getloadavg()
    record: dict[str, Any] = {
        "machine": dict(machine()),
        "decoder": {
            "model": DECODER,
            "sequences": SEQUENCES,
            "depth": {"values": DEPTHS, "bytes": by_way(DECODERS, decoder_bytes, DEPTHS)},
            "context": {
                "values": CONTEXTS,
                "bytes": by_way(DECODERS, partial(decoder_bytes, CONTEXT_DEPTH), CONTEXTS),
            },
        },
        "revbifpn": {
            "model": REVBIFPN,
            "images": IMAGES,
            "depth": {"values": DEPTHS, "bytes": by_way(NETWORKS, network_bytes, DEPTHS)},
            "resolution": {
                "values": RESOLUTIONS,
                "bytes": by_way(NETWORKS, partial(network_bytes, RESOLUTION_SILOS), RESOLUTIONS),
            },
        },
    }
    for name, passes in (("decoder", decoder_passes()), ("revbifpn", network_passes())):
        record[name]["time"] = time_ratios(passes, options.turns)
    record["machine"] |= {"load_before": load_before, "load_after": os.getloadavg()}
    write_json(options.results, record)
    write_atomically(options.figure, panel_figure(TITLE, panels(record)).standalone)
    print(tables(record))
    if steep := not_flat(record):
        sys.exit(f"memory grows with depth: {', '.join(steep)}")


def by_way(ways: Mapping[str, Any], measure: Callable[..., int], values: tuple[int, ...]) -> Table:
    """Return the bytes of each way at each value."""
    return {name: [measure(value, way=ways[name]) for value in values] for name in ways}


def decoder_of(depth: int, way: tuple[str | bool, ActivationMemory]) -> Decoder:
    """Return a decoder with small random weights and room for their gradients."""
    reversible, memory = way
    shape = DECODER | {"n_layers": depth, "reversible": reversible}
    decoder = Decoder(ModelSettings.model_validate(shape))
    decoder.activation_memory = memory
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(std=0.02)
            parameter.grad = torch.zeros_like(parameter)
    return decoder


def decoder_pass(decoder: Decoder, context: int) -> None:
    """Run forward and backward pass of a batch of random tokens."""
    tokens = torch.randint(DECODER["vocab_size"], (SEQUENCES, context))
    loss, count = decoder.loss(tokens, tokens)
    (loss / count).backward()


def decoder_bytes(
    depth: int, context: int = CONTEXT, *, way: tuple[str | bool, ActivationMemory]
) -> int:
    """Return the most that a pass of a decoder keeps alive beyond weights and gradients."""
    decoder = decoder_of(depth, way)
    return peak_bytes(lambda: decoder_pass(decoder, context))


def network_of(silos: int, memory: ActivationMemory) -> RevBiFPN:
    """Return a RevBiFPN with a number of extra silos."""
    settings = RevBiFPNSettings(**REVBIFPN, classes=CLASSES, extra_silos=silos)
    return RevBiFPN(settings, memory, seed=0)


def network_bytes(silos: int, pixels: int = PIXELS, *, way: ActivationMemory) -> int:
    """Return the most that a step of a RevBiFPN keeps alive beyond weights and gradients."""
    images = torch.zeros((IMAGES, 3, pixels, pixels))
    return measured_step(network_of(silos, way), images, CLASSES)[1]


def decoder_passes() -> dict[str, Callable[[], None]]:
    """Return a pass of each way of the decoder."""
    ways = {"stored": DECODERS["stored"], AGAIN: DECODERS["stored"]} | DECODERS
    decoders = {name: decoder_of(TIMED_DEPTH, way) for name, way in ways.items()}
    return {name: partial(decoder_pass, own, CONTEXT) for name, own in decoders.items()}


def network_passes() -> dict[str, Callable[[], None]]:
    """Return a pass of each way of the RevBiFPN."""
    ways = {"stored": NETWORKS["stored"], AGAIN: NETWORKS["stored"]} | NETWORKS
    images, targets = torch.rand((IMAGES, 3, PIXELS, PIXELS)), torch.rand((IMAGES, CLASSES))

    def run(loss: ClassificationLoss) -> None:
        loss(images, targets).backward()

    losses = {name: ClassificationLoss(network_of(TIMED_SILOS, way)) for name, way in ways.items()}
    return {name: partial(run, loss) for name, loss in losses.items()}


def time_ratios(passes: dict[str, Callable[[], None]], turns: int) -> dict[str, Any]:
    """Return milliseconds of each way, and median and quartiles of its ratio to the first."""

    def seconds(run: Callable[[], None]) -> float:
        began = time.process_time()
        run()
        return time.process_time() - began

    timed = seconds_in_turn({name: partial(seconds, run) for name, run in passes.items()}, turns)
    found = {}
    for name, own in timed.items():
        ratios = [one / other for one, other in zip(own, timed["stored"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        found[name] = {
            "cpu_milliseconds": 1e3 * statistics.median(own),
            "over_stored": median,
            "quartiles": [low, high],
        }
    return found


def not_flat(record: dict[str, Any]) -> list[str]:
    """Name the reversible ways whose memory grows with depth."""
    return [
        f"{network}, {way}: {sizes[-1] / sizes[0]:.3f} times"
        for network in ("decoder", "revbifpn")
        for way, sizes in record[network]["depth"]["bytes"].items()
        if way.startswith("reversible") and sizes[-1] > FLAT * sizes[0]
    ]


AXES = (
    ("decoder", "depth", "layers of the decoder"),
    ("decoder", "context", "tokens of a sequence"),
    ("revbifpn", "depth", "extra silos of RevBiFPN"),
    ("revbifpn", "resolution", "pixels of a side"),
)


def panels(record: dict[str, Any]) -> list[Panel]:
    """Return the memory of each network along its two axes."""
    return [
        Panel(
            [
                Series(
                    way, record[network][axis]["values"], [size / 1e6 for size in sizes], "points"
                )
                for way, sizes in record[network][axis]["bytes"].items()
            ],
            label,
            "MB",
        )
        for network, axis, label in AXES
    ]


def tables(record: dict[str, Any]) -> str:
    """Return the record as tables in Markdown, as the docs show them."""
    lines = []
    for network, axis, label in AXES:
        own = record[network][axis]
        values = [f"{value:,}" for value in own["values"]]
        lines += ["", f"| {label} | {' | '.join(values)} | last / first |"]
        lines.append("|---" * (len(values) + 2) + "|")
        for way, sizes in own["bytes"].items():
            shown = " | ".join(f"{size / 1e6:,.1f} MB" for size in sizes)
            lines.append(f"| {way} | {shown} | {sizes[-1] / sizes[0]:.2f} |")
    for network, label in (("decoder", "decoder"), ("revbifpn", "RevBiFPN")):
        lines += ["", f"| {label} | CPU ms a pass | over stored | quartiles |", "|---|---|---|---|"]
        for way, own in record[network]["time"].items():
            low, high = own["quartiles"]
            lines.append(
                f"| {way} | {own['cpu_milliseconds']:,.0f} | {own['over_stored']:.2f} "
                f"| {low:.2f} to {high:.2f} |"
            )
    return "\n".join(lines[1:])


if __name__ == "__main__":
    main()
