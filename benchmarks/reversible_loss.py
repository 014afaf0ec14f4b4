"""The loss of reversible decoders beside the plain one: equal parameters, tokens and seeds.

All arms have the same weights at the start, read the same batches and use the same learning rate,
which was set before the runs and tuned for none of them. The score is the loss on held-out
sequences at the end. Differences are paired by seed, with the 95 % interval of their mean.
Activations are stored, because that is fastest; the other ways change the loss by rounding only.

    python benchmarks/reversible_loss.py
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from feldspar.core.json_files import write_json
from feldspar.core.machine import machine
from feldspar.core.records import read_records
from feldspar.core.student_t import half_width
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.train.run import train
from training_throughput import write_documents

RESULTS = Path(__file__).parent / "results" / "reversible_loss.json"
ARMS = {
    "plain": ("model.reversible=false",),
    "revnet": ("model.reversible=revnet",),
    "reformer": ("model.reversible=reformer",),
}
MODEL = (
    "{n_layers: 6, d_model: 64, n_heads: 4, d_ff: 172, vocab_size: 1024, "
    "max_sequence_length: 128, positions: rotary, feed_forward: swiglu}"
)
STEPS, SEQUENCES, SEEDS = 600, 8, (0, 1, 2)
RECIPE = """
schema_version: 1
name: reversible
shards: {{path: {shards}}}
model: {model}
parametrization: {{type: sp, learning_rate: 3.0e-3}}
schedule: {{learning_rate: [{{to: 1, over: 5% of run}}, {{to: 0.05, over: rest}}]}}
phases:
  - {{name: all, length: {steps} steps, batch: {{sequences: {sequences}}}, allow_repeat: true}}
evaluation: {{every: {steps} steps, validation_sequences: 64}}
checkpoints: {{every: {steps} steps}}
runtime: {{trackers: [], threads: 1, device: cpu, activation_memory: store}}
"""


def main() -> None:
    """Train all arms, print the table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    losses: dict[str, list[float]] = {name: [] for name in ARMS}
    began = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        recipe = write_recipe(Path(name), options.steps)
        for seed in options.seeds:
            for arm, changes in ARMS.items():
                out = Path(name) / f"{arm}-{seed}"
                train(load_recipe(str(recipe), [f"seed={seed}", *changes]), out)
                losses[arm].append(last_loss(out))
                print(f"seed {seed}, {arm}: {losses[arm][-1]:.4f}", flush=True)
    result = {
        "machine": dict(machine()) | {"load_after": os.getloadavg()},
        "cpu_seconds": time.process_time() - began,
        "model": MODEL,
        "tokens": options.steps * SEQUENCES * 128,
        "seeds": options.seeds,
        "losses": losses,
    }
    write_json(options.results, result)
    print(table(result))


def write_recipe(folder: Path, steps: int) -> Path:
    """Build shards of the standard library, and write the recipe of all arms."""
    documents = write_documents(folder / "documents", 3.0)
    shards = folder / "shards"
    build_shards(documents, TrainBpe(vocab_size=1024), ShardSettings(path=shards), seed=0)
    path = folder / "recipe.yaml"
    text = RECIPE.format(shards=shards, model=MODEL, steps=steps, sequences=SEQUENCES)
    path.write_text(text, encoding="utf-8")
    return path


def last_loss(out: Path) -> float:
    """Return the validation loss at the end of a run."""
    *_, last = read_records(out / "metrics.jsonl")
    return float(last["validation/loss"])


def table(result: dict[str, Any]) -> str:
    """Return the result as a table in Markdown, as the docs show it."""
    plain = result["losses"]["plain"]
    lines = ["| decoder | loss | above plain (95 % interval) |", "|---|---|---|"]
    for arm, losses in result["losses"].items():
        differences = [one - other for one, other in zip(losses, plain, strict=True)]
        shown = f"{fmean(differences):+.4f} ± {half_width(differences) or 0.0:.4f}"
        lines.append(f"| {arm} | {fmean(losses):.4f} | {'' if arm == 'plain' else shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
