"""What a step costs under muP, SmuPar and CompleteP, and with masks, over the same model under sp.

Each contender is the run that `feldspar train` makes of one recipe, in a process of its own, one
thread. The processes take turns of a few steps, forwards and backwards in order, so that all of
them meet the same machine; several rounds of new processes even out where memory happened to lie.
The processor time of a turn is divided by that of sp's turn beside it, and the median of all turns
counts. ``sp again`` is sp a second time: how far its ratio is from 1 is what the measurement
cannot tell apart. Run:

    python benchmarks/parametrization_overhead.py
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from training_throughput import Worker, machine, write_documents

RESULTS = Path(__file__).parent / "results" / "parametrization_overhead.json"
MODEL = "{n_layers: 4, d_model: 256, n_heads: 4, d_ff: 1024, max_sequence_length: 256}"
VOCABULARY, SEQUENCES, CONTEXT_LENGTH = 8192, 4, 256
SCALED = (
    "base_d_model: 64, base_d_ff: 256, init_std: 0.08, learning_rate: 6.0e-3, "
    "embedding_multiplier: 10, output_multiplier: 2"
)
SP = "type: sp, learning_rate: 1.0e-3"
DENSE, SPARSE = "dense", "{type: static, sparsity: 0.75}"
CONTENDERS = {
    "sp": (SP, DENSE),
    "sp again": (SP, DENSE),
    "mup": (f"type: mup, {SCALED}", DENSE),
    "supar": (f"type: supar, {SCALED}", DENSE),
    "completep": (f"type: completep, base_n_layers: 2, {SCALED}", DENSE),
    "supar, 75 % masked": (f"type: supar, {SCALED}", SPARSE),
}
"""By name: the recipe's section, and its phase's sparsity."""

RECIPE = """
schema_version: 1
name: overhead
shards: {{path: {shards}}}
model: {model}
parametrization: {{{parametrization}}}
phases:
  - {{name: all, length: {steps} steps, batch: {{sequences: {sequences}}}, allow_repeat: true,
      sparsity: {sparsity}}}
evaluation: {{every: {steps} steps}}
checkpoints: {{every: {steps} steps}}
runtime: {{trackers: [], threads: 1, device: cpu}}
"""


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="times that processes start anew")
    parser.add_argument("--turns", type=int, default=20, help="turns of each process")
    parser.add_argument("--steps", type=int, default=2, help="steps a turn")
    parser.add_argument("--megabytes", type=float, default=2.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    described = machine()
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as name:
        shards = build(Path(name), options.megabytes)
        for number in range(options.rounds):
            recipes = write_recipes(Path(name) / str(number), shards, options)
            for contender, measured in take_turns(recipes, options).items():
                seconds[contender] += measured
    described["load_after"] = os.getloadavg()
    result = {
        "machine": described,
        "model": MODEL,
        "batch": {"sequences": SEQUENCES, "context_length": CONTEXT_LENGTH},
        "turns": options.rounds * options.turns,
        "contenders": summary(seconds, options.steps),
    }
    print(table(result["contenders"]), flush=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def build(folder: Path, megabytes: float) -> Path:
    """Shards of the standard library."""
    from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
    from feldspar.tokens.shards.build_shards import build_shards

    documents = write_documents(folder / "documents", megabytes)
    settings = ShardSettings(path=folder / "shards")
    build_shards(documents, TrainBpe(vocab_size=VOCABULARY), settings, seed=0)
    return folder / "shards"


def write_recipes(folder: Path, shards: Path, options: argparse.Namespace) -> dict[str, Path]:
    """A recipe for each contender, in a folder of its own, that lasts for all turns."""
    recipes = {}
    # The first turn warms up, and the run's last step, with its evaluation, is not reached.
    steps = options.steps * (options.turns + 1) + 1
    for number, (name, (parametrization, sparsity)) in enumerate(CONTENDERS.items()):
        path = folder / str(number) / "recipe.yaml"
        path.parent.mkdir(parents=True)
        text = RECIPE.format(
            shards=shards,
            model=MODEL,
            parametrization=parametrization,
            steps=steps,
            sequences=SEQUENCES,
            sparsity=sparsity,
        )
        path.write_text(text, encoding="utf-8")
        recipes[name] = path
    return recipes


def take_turns(recipes: dict[str, Path], options: argparse.Namespace) -> dict[str, list[float]]:
    """Processor seconds of every turn by contender."""
    workers: dict[str, Worker] = {}
    seconds: dict[str, list[float]] = {name: [] for name in recipes}
    try:
        for name, recipe in recipes.items():
            workers[name] = Worker("feldspar", recipe)
            workers[name].turn(options.steps)
        for number in range(options.turns):
            for name in recipes if number % 2 == 0 else reversed(recipes):
                seconds[name].append(workers[name].turn(options.steps)["cpu_seconds"])
    finally:
        for worker in workers.values():
            worker.close()
    return seconds


def summary(seconds: dict[str, list[float]], steps: int) -> dict[str, Any]:
    """Milliseconds a step, and the median and quartiles of the ratio to sp's turn beside it."""
    contenders = {}
    for name, own in seconds.items():
        ratios = [one / other for one, other in zip(own, seconds["sp"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        contenders[name] = {
            "cpu_milliseconds_per_step": 1e3 * statistics.median(own) / steps,
            "over_sp": median,
            "over_sp_quartiles": [low, high],
        }
    return contenders


def table(contenders: dict[str, Any]) -> str:
    """The figures as text."""
    rows = [f"{'':20}{'CPU ms a step':>14}{'over sp':>10}{'quartiles':>18}"]
    for name, own in contenders.items():
        low, high = own["over_sp_quartiles"]
        rows.append(
            f"{name:20}{own['cpu_milliseconds_per_step']:14.1f}{own['over_sp']:9.3f}x"
            f"{low:11.3f} - {high:.3f}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
