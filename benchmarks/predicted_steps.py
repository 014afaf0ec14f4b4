"""The time of training steps that a plan predicts, against the steps of real runs.

For each recipe ``plan --measure-products`` predicts the seconds of a step with sparse and with
dense products. Then both runs are trained, and the processor time of each step is taken. One thread
is used, so that other jobs on the machine matter little. The first two steps are left out. Run:

    python benchmarks/predicted_steps.py
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from feldspar.core.machine import processor
from feldspar.plan.timeline import StepPlan
from feldspar.recipe.load import LoadedRecipe, load_recipe
from feldspar.train.plan_questions import Questions, answer
from feldspar.train.run import train
from feldspar.train.trainer import TakenStep, Trainer

RESULTS = Path(__file__).parent / "results" / "predicted_steps.json"
STEPS, LEFT_OUT = 10, 2
BLOCKS, SINGLE = "block: [4, 1]", "block: [1, 1]"
WIDE = ("model.d_model=512", "model.n_heads=8", "model.d_ff=1376")
NARROW = ("model.d_model=128", "model.n_heads=4", "model.d_ff=344")
CASES = {
    "d 512, 75 % in blocks of 4 x 1": (0.75, BLOCKS, WIDE),
    "d 512, 87.5 % of single entries": (0.875, SINGLE, WIDE),
    "d 128, 75 % in blocks of 4 x 1": (0.75, BLOCKS, NARROW),
}
COMMON = (
    "optimizer.type=adamw",
    "model.n_layers=4",
    "runtime.threads=1",
    "runtime.trackers=[]",
    "evaluation.validation_sequences=1",
)


def main() -> None:
    """Measure, print and write the result."""
    rows: dict[str, Any] = {}
    for name, (sparsity, block, shape) in CASES.items():
        settings = f"{{type: static, sparsity: {sparsity}, {block}}}"
        overrides = [f"phases.0.sparsity={settings}", f"phases.0.length={STEPS} steps"]
        overrides += [*COMMON, *shape]
        loaded = load_recipe("quickstart", overrides)
        _, summary = answer(loaded, Questions(measure_products=True))
        step = summary["phases"][0]["masked_products"]["measured"]["step"]
        row = {"predicted": {how: step[f"{how}_seconds"] for how in ("sparse", "dense")}}
        row["run"] = {
            how: step_seconds(load_recipe("quickstart", [*overrides, products]))
            for how, products in (
                ("sparse", "runtime.masked_products=auto"),
                ("dense", "runtime.masked_products=dense"),
            )
        }
        rows[name] = row
        shown = (f"{how} {v['sparse']:.3f} s, dense {v['dense']:.3f} s" for how, v in row.items())
        print(f"{name}: {'; '.join(shown)}")
    RESULTS.write_text(json.dumps({"processor": processor(), "steps": rows}, indent=2) + "\n")


def step_seconds(loaded: LoadedRecipe) -> float:
    """Train; return the median processor time of a step."""
    seconds: list[float] = []
    step = Trainer.step

    def timed(trainer: Trainer, plan: StepPlan) -> TakenStep:
        began = time.thread_time()
        taken = step(trainer, plan)
        seconds.append(time.thread_time() - began)
        return taken

    with tempfile.TemporaryDirectory() as folder, patch.object(Trainer, "step", timed):
        train(loaded, Path(folder) / "run")
    return statistics.median(seconds[LEFT_OUT:])


if __name__ == "__main__":
    main()
