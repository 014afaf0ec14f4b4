"""Training tokens a second against Hugging Face's Trainer and against a bare loop on our model.

Every contender trains the same shape on the same windows in a process of its own, one thread each.
The processes take turns of a few steps, so that all of them meet the same machine; the median turn
counts. The shards come from this Python's own library. Run:

    python benchmarks/training_throughput.py [--profile]

Contenders: ``feldspar`` is the run that ``feldspar train`` makes, metrics and all; ``bare`` a loop
written by hand on our model; ``trainer`` Hugging Face's Trainer as one runs it; ``trainer+pages``
the same with the C library told to keep freed pages, as ours does; ``trainer+tuned`` (GPT-2) also
with the activation in one operation, which the class does not do by itself.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contenders.training import BATCH_SEQUENCES, CONTEXT_LENGTH

RESULTS = Path(__file__).parent / "results" / "training_throughput.json"
CONTENDERS = Path(__file__).parent / "contenders" / "training.py"
PAGES = "+pages"

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "trainer": ["trainer", "trainer+pages", "trainer+tuned"],
        "vocab_size": 8192,
        "model": "{n_layers: 4, d_model: 256, n_heads: 4, d_ff: 1024, max_sequence_length: 256}",
    },
    "quickstart": {
        "trainer": ["trainer", "trainer+pages"],
        "vocab_size": 4096,
        "model": "{n_layers: 4, d_model: 128, n_heads: 4, d_ff: 344, max_sequence_length: 256, "
        "positions: rotary, feed_forward: swiglu, norm: {type: rms, epsilon: 1e-5}, bias: false}",
    },
    "btlm": {
        "trainer": [],
        "vocab_size": 4096,
        "model": "{n_layers: 4, d_model: 128, n_heads: 4, d_ff: 341, max_sequence_length: 256, "
        "positions: alibi, feed_forward: swiglu}",
    },
}
"""Shapes with the contenders that can express them; quickstart's is the recipe's first one."""

RECIPE = """
schema_version: 1
name: throughput
shards: {{path: {shards}}}
model: {model}
parametrization: {{type: sp, learning_rate: 1.0e-3}}
optimizer: {{betas: [0.9, 0.95], weight_decay: 0.1, clip_norm: 1.0}}
phases:
  - {{name: all, length: {steps} steps, batch: {{sequences: 16}}, mixture: natural,
      allow_repeat: true}}
evaluation: {{every: {steps} steps}}
checkpoints: {{every: {steps} steps}}
runtime: {{trackers: [], threads: 1, device: cpu}}
"""


# What the parent does: shards, turns, table.


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps a turn")
    parser.add_argument("--megabytes", type=float, default=6.0)
    parser.add_argument("--profile", action="store_true", help="say where the time goes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    result: dict[str, Any] = {"machine": machine(), "shapes": {}}
    with tempfile.TemporaryDirectory() as name:
        for shape in options.shapes:
            folder = Path(name) / shape
            recipe = write_recipe(folder, shape, options)
            measured = measure(recipe, SHAPES[shape]["trainer"], options)
            result["shapes"][shape] = measured
            print(table(shape, measured), flush=True)
            result["machine"]["load_after"] = os.getloadavg()
            # After each shape: the next one takes minutes, and may be interrupted.
            options.results.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(result, indent=2) + "\n"
            options.results.write_text(text, encoding="utf-8")


def write_recipe(folder: Path, shape: str, options: argparse.Namespace) -> Path:
    """Shards of the standard library, and a recipe over them that lasts for all turns."""
    from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
    from feldspar.tokens.shards.build_shards import build_shards

    documents = write_documents(folder / "documents", options.megabytes)
    vocab_size = SHAPES[shape]["vocab_size"]
    build_shards(
        documents, TrainBpe(vocab_size=vocab_size), ShardSettings(path=folder / "shards"), seed=0
    )
    # One step more than asked for: the run's evaluation at its end is not to be measured.
    steps = options.steps * (options.turns + 2) + 1
    text = RECIPE.format(shards=folder / "shards", model=SHAPES[shape]["model"], steps=steps)
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def write_documents(folder: Path, megabytes: float) -> Path:
    """Documents of one source, in both splits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from feldspar.core.manifest import Manifest, records_of, write_manifest

    texts = list(library_texts(int(megabytes * 1e6)))
    for split, own in (("train", texts[8:]), ("validation", texts[:8])):
        target = folder / split / "library"
        target.mkdir(parents=True)
        names = [f"{split}-{n}" for n in range(len(own))]
        columns = {"id": names, "source": ["library"] * len(own), "text": own, "group": names}
        pq.write_table(pa.table(columns | {"origin": names}), target / "part-00000.parquet")
    counts = {"sources": {"library": {}}}
    manifest = Manifest("documents", "benchmark", "0", counts=counts, files=records_of(folder))
    write_manifest(folder, manifest)
    return folder


def library_texts(size: int) -> Iterator[str]:
    """Python files of the standard library, up to ``size`` bytes."""
    import sysconfig

    found = 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*/*.py")):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            yield text
            found += len(text.encode())
        if found >= size:
            return


class Worker:
    """A contender's process, which trains only when it has a turn."""

    def __init__(self, contender: str, recipe: Path) -> None:
        command = [sys.executable, str(CONTENDERS), contender, str(recipe)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self, steps: int, profile: bool = False) -> dict[str, Any]:
        """Train some steps; what they took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"steps": steps, "profile": profile}) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"a contender ended early: {self._process.args}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def measure(recipe: Path, trainers: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Medians of alternating turns, and ratios of turns that followed each other."""
    names = ["feldspar", "bare", *trainers]
    workers = {name: Worker(name, recipe) for name in names}
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    peaks = []
    try:
        for name in names:
            workers[name].turn(options.steps)  # warms up
        for number in range(options.turns):
            peaks.append(matmul_flops())
            for name in names if number % 2 == 0 else reversed(names):
                turns[name].append(workers[name].turn(options.steps))
        profiles = {
            name: workers[name].turn(options.steps, profile=True)["profile"]
            for name in (names if options.profile else ())
        }
    finally:
        for worker in workers.values():
            worker.close()
    return summary(recipe, turns, peaks, options.steps) | {"profile": profiles}


def summary(
    recipe: Path, turns: dict[str, list[dict[str, Any]]], peaks: list[float], steps: int
) -> dict[str, Any]:
    """Speeds by wall clock and by processor time, shares of the peak, and ratios."""
    tokens = steps * BATCH_SEQUENCES * CONTEXT_LENGTH
    flops = flops_per_token(recipe)
    peak = statistics.median(peaks)
    ours = turns["feldspar"]
    contenders = {}
    for name, own in turns.items():
        contenders[name] = {
            "tokens_per_second": tokens / median_of(own, "seconds"),
            "tokens_per_cpu_second": tokens / median_of(own, "cpu_seconds"),
            # Against the peak of the same turn: other work on the machine slows both.
            "share_of_peak": statistics.median(
                flops * tokens / turn["cpu_seconds"] / best
                for turn, best in zip(own, peaks, strict=True)
            ),
            "page_faults_per_step": median_of(own, "page_faults") / steps,
            "feldspar_is_faster_by": paired(own, ours, "seconds"),
            "feldspar_is_faster_by_cpu": paired(own, ours, "cpu_seconds"),
        }
    return {
        "batch": {"sequences": BATCH_SEQUENCES, "context_length": CONTEXT_LENGTH},
        "flops_per_token": flops,
        "peak_flops_per_second": peak,
        "contenders": contenders,
    }


def median_of(turns: list[dict[str, Any]], key: str) -> float:
    """The median of one figure."""
    return statistics.median(turn[key] for turn in turns)


def paired(theirs: list[dict[str, Any]], ours: list[dict[str, Any]], key: str) -> float:
    """Median over rounds of their time divided by ours."""
    return statistics.median(a[key] / b[key] for a, b in zip(theirs, ours, strict=True))


def table(shape: str, measured: dict[str, Any]) -> str:
    """The figures as text."""
    peak = measured["peak_flops_per_second"] / 1e9
    heads = ("tokens/s", "per CPU s", "of peak", "faults/step", "ours is", "by CPU")
    rows = [
        f"{shape}: {BATCH_SEQUENCES} x {CONTEXT_LENGTH} tokens, 1 thread, peak {peak:.1f} GFLOP/s",
        " " * 16 + "".join(f"{head:>12}" for head in heads),
    ]
    for name, own in measured["contenders"].items():
        rows.append(
            f"{name:16}{own['tokens_per_second']:12,.0f}{own['tokens_per_cpu_second']:12,.0f}"
            f"{own['share_of_peak']:12.2f}{own['page_faults_per_step']:12,.0f}"
            f"{own['feldspar_is_faster_by']:11.2f}x{own['feldspar_is_faster_by_cpu']:11.2f}x"
        )
    profiles = measured["profile"]
    if profiles:
        rows += ["milliseconds of CPU a step:", " " * 20 + "".join(f"{n:>15}" for n in profiles)]
        for kind in next(iter(profiles.values())):
            cells = "".join(f"{profile[kind]:15.1f}" for profile in profiles.values())
            rows.append(f"  {kind:18}{cells}")
    return "\n".join(rows) + "\n"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch
    import transformers

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "load_before": os.getloadavg(),
    }


def matmul_flops(size: int = 1024, repeats: int = 8) -> float:
    """The best rate of a large product, by processor time."""
    import torch

    torch.set_num_threads(1)
    left = torch.ones(size, size)
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        left @ left
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best


def flops_per_token(recipe: Path) -> float:
    """By the convention 6P+attention, the token table counted once, as the head."""
    from feldspar.plan.flops import flops_per_token as by_convention
    from feldspar.plan.summary import plan_recipe
    from feldspar.recipe.load import load_recipe
    from feldspar.train.data import open_shards, source_tokens, with_vocabulary

    loaded = load_recipe(str(recipe))
    shards = open_shards(loaded.recipe)
    plan = plan_recipe(
        with_vocabulary(loaded, shards.vocab_size).recipe, source_tokens(shards, loaded.recipe)
    )
    return by_convention(plan.recipe.model, plan.shapes, CONTEXT_LENGTH)["6P+attention"]


# What a contender's process does.


if __name__ == "__main__":
    main()
