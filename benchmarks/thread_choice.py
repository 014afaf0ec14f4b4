"""The choice of threads: quickstart's training alone and beside a busy process.

The run that ``feldspar train`` makes of the quickstart's model and batch, with ``runtime.threads``
of ``auto``, 1 and all (2 on a machine of two cores), and 1 once more to show what the measurement
itself varies by. Each is a process of its own; they take turns of a few steps in an order that
rotates, first alone, then beside a process that is busy all the time, which this script starts.
``auto`` stands for two runs there: the one that was begun alone, and one that begins beside the
busy process. The first turn of each process (it reads shards, warms up and chooses), and the first
turn after the busy process has started, are told apart. Run on a machine without other work:

    python benchmarks/thread_choice.py
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feldspar.core.machine import processor
from training_throughput import Worker, write_documents

RESULTS = Path(__file__).parent / "results" / "thread_choice.json"
SEQUENCES, CONTEXT_LENGTH, VOCABULARY = 8, 256, 4096
AUTO, LATER, ONE, AGAIN = "auto", "auto, begun beside it", "1 thread", "1 thread, again"

RECIPE = """
schema_version: 1
name: threads
shards: {{path: {shards}}}
model: {{n_layers: 4, d_model: 128, n_heads: 4, d_ff: 344, max_sequence_length: 256,
  positions: rotary, feed_forward: swiglu, norm: {{type: rms, epsilon: 1e-5}}, bias: false,
  tied_embeddings: true}}
parametrization: {{type: mup, base_d_model: 64, base_d_ff: 172, init_std: 0.08,
  learning_rate: 8e-3, embedding_multiplier: 10, attention_multiplier: 5.65685424949238}}
optimizer: {{betas: [0.9, 0.95], weight_decay: 0.1, clip_norm: 1.0}}
phases:
  - {{name: all, length: {steps} steps, batch: {{sequences: 8}}, mixture: natural,
      allow_repeat: true}}
evaluation: {{every: {steps} steps}}
checkpoints: {{every: {steps} steps}}
runtime: {{trackers: [], threads: {threads}, device: cpu}}
"""


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=8, help="turns of each process, twice")
    parser.add_argument("--steps", type=int, default=6, help="steps a turn")
    parser.add_argument("--megabytes", type=float, default=4.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)
    described = machine()
    most = f"{described['threads']} threads"
    with tempfile.TemporaryDirectory() as name:
        settings = {AUTO: "auto", LATER: "auto", ONE: 1, AGAIN: 1, most: described["threads"]}
        recipes = write_recipes(Path(name), settings, options)
        turns = measure(recipes, options)
        events = {label: choices(recipes[label].parent / "run") for label in (AUTO, LATER)}
    described["load_after"] = os.getloadavg()
    tokens = options.steps * SEQUENCES * CONTEXT_LENGTH
    result = {
        "machine": described,
        "batch": {"sequences": SEQUENCES, "context_length": CONTEXT_LENGTH},
        "turns": options.turns,
        "steps": options.steps,
        "situations": {
            situation: summary(seconds, (ONE, most), tokens) for situation, seconds in turns.items()
        },
        "choices": events,
    }
    print("\n".join(table(name, own) for name, own in result["situations"].items()), flush=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def write_recipes(
    folder: Path, settings: dict[str, str | int], options: argparse.Namespace
) -> dict[str, Path]:
    """A recipe for each contender, in a folder of its own, that lasts for all turns."""
    from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
    from feldspar.tokens.shards.build_shards import build_shards

    documents = write_documents(folder / "documents", options.megabytes)
    shards = folder / "shards"
    build_shards(documents, TrainBpe(vocab_size=VOCABULARY), ShardSettings(path=shards), seed=0)
    recipes = {}
    # The run's last step, with its validation, is not reached.
    steps = options.steps * (2 * options.turns + 2) + 1
    for number, (name, threads) in enumerate(settings.items()):
        path = folder / str(number) / "recipe.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(
            RECIPE.format(shards=shards, steps=steps, threads=threads), encoding="utf-8"
        )
        recipes[name] = path
    return recipes


def measure(
    recipes: dict[str, Path], options: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each turn by situation and contender, the first turn included."""
    alone = [name for name in recipes if name != LATER]
    workers: dict[str, Worker] = {}
    try:
        for name in alone:
            workers[name] = Worker("feldspar", recipes[name])
            workers[name].turn(options.steps)
        quiet = take_turns(workers, options)
        with busy_process():
            workers[LATER] = Worker("feldspar", recipes[LATER])
            workers[LATER].turn(options.steps)
            beside = take_turns(workers, options)
    finally:
        for worker in workers.values():
            worker.close()
    return {"alone": quiet, "beside a busy process": beside}


def take_turns(workers: dict[str, Worker], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each turn; who begins changes from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    names = list(workers)
    for number in range(options.turns):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(workers[name].turn(options.steps)["seconds"])
    return seconds


@contextmanager
def busy_process() -> Generator[None]:
    """Keep one processor busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def summary(seconds: dict[str, list[float]], fixed: tuple[str, str], tokens: int) -> dict[str, Any]:
    """Tokens a second, and the ratio of speeds to the better fixed number in the same round."""
    counted = {name: own[1:] or own for name, own in seconds.items()}
    better = min(fixed, key=lambda name: statistics.median(counted[name]))
    contenders = {}
    for name, own in counted.items():
        ratios = [theirs / ours for theirs, ours in zip(counted[better], own, strict=True)]
        contenders[name] = {
            "tokens_per_second": tokens / statistics.median(own),
            "first_turn_tokens_per_second": tokens / seconds[name][0],
            "of_the_better": statistics.median(ratios),
            "range": [min(ratios), max(ratios)],
        }
    same = [one / other for one, other in zip(counted[ONE], counted[AGAIN], strict=True)]
    return {
        "better": better,
        "contenders": contenders,
        "one_thread_over_itself": {
            "median": statistics.median(same),
            "range": [min(same), max(same)],
        },
    }


def table(situation: str, measured: dict[str, Any]) -> str:
    """The figures as text."""
    rows = [
        f"{situation}: {SEQUENCES} x {CONTEXT_LENGTH} tokens a step; better: {measured['better']}",
        f"{'':24}{'tokens/s':>10}{'of the better':>15}{'range':>16}{'first turn':>12}",
    ]
    for name, own in measured["contenders"].items():
        low, high = own["range"]
        rows.append(
            f"{name:24}{own['tokens_per_second']:10,.0f}{own['of_the_better']:15.2f}"
            f"{low:9.2f} - {high:.2f}{own['first_turn_tokens_per_second']:12,.0f}"
        )
    same = measured["one_thread_over_itself"]
    low, high = same["range"]
    rows.append(f"1 thread over itself: {same['median']:.2f} ({low:.2f} - {high:.2f})")
    return "\n".join(rows) + "\n"


def choices(run: Path) -> list[dict[str, Any]]:
    """Read the events about threads from the run's records."""
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return [event for event in events if event["event"] == "threads"]


def machine() -> dict[str, Any]:
    """Describe the machine that the figures were measured on."""
    import torch

    from feldspar.core.execution import available_cores

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": min(torch.get_num_threads(), available_cores()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_before": os.getloadavg(),
    }


if __name__ == "__main__":
    main()
