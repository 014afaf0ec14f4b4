"""The processor time of a training step, measured for several recipes in turn.

Other programs on the machine lengthen a step on the clock, and not all arms alike. The processor
time of one thread counts only what the step itself computes; on a quiet machine both are equal.
Because the arms take turns, a change of the processor's speed meets all of them.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from feldspar.papers.kit.turns import seconds_in_turn
from feldspar.recipe.load import load_recipe
from feldspar.runtime.allocator import keep_freed_pages
from feldspar.runtime.distributed import Distribution
from feldspar.study.trials import ALWAYS
from feldspar.train.lifecycle import open_run
from feldspar.train.run import Inputs, begin_training
from feldspar.train.trainer import Trainer


def step_seconds_in_turn(
    recipe: str, arms: Mapping[str, Sequence[str]], turns: int
) -> dict[str, list[float]]:
    """Return the processor seconds of ``turns`` steps of each arm, by one thread.

    ``arms`` holds overrides of ``recipe``. The first two steps of each arm warm up and are left
    out. The arm that begins changes from turn to turn.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        steps = {
            name: partial(_step, _trainer(stack, recipe, own, folder / str(number)))
            for number, (name, own) in enumerate(arms.items())
        }
        keep_freed_pages()  # as a run does
        return seconds_in_turn(steps, turns)


def _trainer(stack: ExitStack, recipe: str, overrides: Sequence[str], folder: Path) -> Trainer:
    """Return the trainer of a new run, which ends with ``stack``."""
    loaded = load_recipe(recipe, [*ALWAYS, *overrides])
    distribution = stack.enter_context(Distribution.start(loaded.recipe.runtime))
    inputs = Inputs.open(loaded)
    run = stack.enter_context(open_run(inputs.loaded, inputs.plan.timeline, folder, False))
    trainer = begin_training(inputs, run, distribution)
    stack.callback(trainer.task.batches.close)
    return trainer


def _step(trainer: Trainer) -> float:
    """Take the next step of a run and return its processor seconds."""
    plan = trainer.course.next_step(trainer.position)
    assert plan is not None, "the run is longer than the measurement"
    if plan.phase.index != trainer.phase.index:
        trainer.enter_phase(plan.phase)
    began = time.process_time()
    trainer.step(plan)
    return time.process_time() - began
