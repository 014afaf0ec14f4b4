"""Training steps with sparse products against the same steps of a dense model.

Each contender is the run that `feldspar train` makes of one recipe, in a process of its own, with
one thread: the dense model, the dense model again, and masked ones, which choose their products
when they begin. One more has masks and multiplies all entries (``masked_products: dense``): what a
mask costs where nothing is saved. The processes take turns of a step, and the one that begins
changes from turn to turn. The processor time of a turn is compared with that of the dense model's
turn beside it, and the median counts. ``dense, again`` shows how far from 1 a ratio is by chance.
Then the losses of sparse and masked dense products are compared over some steps of one sequence.
Run:

    python benchmarks/sparse_training.py
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from feldspar.papers.kit.turns import rotated
from parametrization_overhead import build
from training_throughput import Worker, machine

RESULTS = Path(__file__).parent / "results" / "sparse_training.json"
MODEL = "{n_layers: 8, d_model: 512, n_heads: 8, d_ff: 2048, max_sequence_length: 512}"
SEQUENCES, CONTEXT_LENGTH = 4, 512
DENSE = "dense"
STATIC = "{{type: static, sparsity: {}, block: {}}}"
CONTENDERS = {
    DENSE: ("dense", "auto"),
    "dense, again": ("dense", "auto"),
    "75 % masked": (STATIC.format(0.75, [1, 1]), "dense"),
    "50 %, 4 x 1": (STATIC.format(0.5, [4, 1]), "auto"),
    "75 %": (STATIC.format(0.75, [1, 1]), "auto"),
    "75 %, 4 x 1": (STATIC.format(0.75, [4, 1]), "auto"),
    "75 %, 4 x 4": (STATIC.format(0.75, [4, 4]), "auto"),
    "87.5 %": (STATIC.format(0.875, [1, 1]), "auto"),
    "87.5 %, 4 x 1": (STATIC.format(0.875, [4, 1]), "auto"),
}
"""By name: the phase's sparsity, and the products of masked matrices."""
COMPARED = ("75 %, 4 x 1", "87.5 %")
"""Contenders whose losses are compared with those of masked dense products."""

RECIPE = """
schema_version: 1
name: sparse
shards: {{path: {shards}}}
model: {model}
parametrization: {{type: sp, learning_rate: 3.0e-4}}
phases:
  - {{name: all, length: {steps} steps, batch: {{sequences: {sequences}}}, allow_repeat: true,
      sparsity: {sparsity}}}
evaluation: {{every: {steps} steps, validation_sequences: 4}}
checkpoints: {{every: {steps} steps}}
runtime: {{trackers: [], threads: {threads}, device: cpu, masked_products: {products}}}
"""


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--compared-steps", type=int, default=50)
    parser.add_argument("--megabytes", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    described = machine() | {"threads": options.threads}
    with tempfile.TemporaryDirectory() as name:
        shards = build(Path(name), options.megabytes)
        recipes = {
            contender: write_recipe(Path(name) / str(number), shards, contender, options)
            for number, contender in enumerate(CONTENDERS)
        }
        seconds = take_turns(recipes, options)
        differences = {
            contender: compare_losses(Path(name), shards, contender, options)
            for contender in COMPARED
        }
    described["load_after"] = os.getloadavg()
    result = {
        "machine": described,
        "model": MODEL,
        "batch": {"sequences": SEQUENCES, "context_length": CONTEXT_LENGTH},
        "turns": options.turns,
        "contenders": summary(seconds),
        "largest relative difference of losses from masked dense products": {
            "steps": options.compared_steps,
            **differences,
        },
    }
    print(table(result["contenders"]), flush=True)
    print(f"losses of {options.compared_steps} steps differ by at most {differences}")
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def write_recipe(
    folder: Path, shards: Path, contender: str, options: argparse.Namespace, **changes: Any
) -> Path:
    """Write the recipe of a contender, which lasts for all turns."""
    sparsity, products = CONTENDERS[contender]
    values = {
        # The first turn warms up, and the run's last step, with its evaluation, is not reached.
        "steps": options.turns + 2,
        "products": products,
        "sequences": SEQUENCES,
        **changes,
    }
    path = folder / "recipe.yaml"
    path.parent.mkdir(parents=True)
    text = RECIPE.format(
        shards=shards,
        model=MODEL,
        sparsity=sparsity,
        threads=options.threads,
        **values,
    )
    path.write_text(text, encoding="utf-8")
    return path


def take_turns(recipes: dict[str, Path], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of every turn by contender; of the processor for one thread."""
    clock = "cpu_seconds" if options.threads == 1 else "seconds"
    workers: dict[str, Worker] = {}
    seconds: dict[str, list[float]] = {name: [] for name in recipes}
    names = list(recipes)
    try:
        for name, recipe in recipes.items():
            workers[name] = Worker("feldspar", recipe)
            workers[name].turn(1)
        for number in range(options.turns):
            for name in rotated(names, number):
                seconds[name].append(workers[name].turn(1)[clock])
    finally:
        for worker in workers.values():
            worker.close()
    return seconds


def compare_losses(
    folder: Path, shards: Path, contender: str, options: argparse.Namespace
) -> float:
    """Return the largest relative difference of losses between sparse and dense products."""
    from feldspar.recipe.load import load_recipe
    from feldspar.train.run import train

    losses = []
    for products in ("sparse", "dense"):
        place = folder / contender / products
        steps = {"steps": options.compared_steps, "sequences": 1}
        recipe = write_recipe(place, shards, contender, options, products=products, **steps)
        out = train(load_recipe(str(recipe)), place / "run").folder
        records = map(json.loads, (out / "metrics.jsonl").read_text("utf-8").splitlines())
        losses.append([record["train/loss"] for record in records if "train/loss" in record])
    return max(abs(one - other) / other for one, other in zip(*losses, strict=True))


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return milliseconds of a step, and its speed over dense: median and quartiles."""
    contenders = {}
    for name, own in seconds.items():
        ratios = [other / one for one, other in zip(own, seconds[DENSE], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        contenders[name] = {
            "milliseconds_per_step": 1e3 * statistics.median(own),
            "times_as_fast_as_dense": median,
            "quartiles": [low, high],
        }
    return contenders


def table(contenders: dict[str, Any]) -> str:
    """Return the figures as text."""
    rows = [f"{'':16}{'ms a step':>12}{'times as fast':>15}{'quartiles':>16}"]
    for name, own in contenders.items():
        low, high = own["quartiles"]
        rows.append(
            f"{name:16}{own['milliseconds_per_step']:12,.0f}"
            f"{own['times_as_fast_as_dense']:15.2f}{low:9.2f} - {high:.2f}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
