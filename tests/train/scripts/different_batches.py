"""Each process reads another noise scale; all of them must hear of both batches."""

import sys

from feldspar.core.errors import RunError
from feldspar.noise_scale.control.controller import Reading
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.runtime import RuntimeSettings
from feldspar.runtime.distributed import Distribution
from feldspar.train.steering import Steering


def check(distribution: Distribution) -> None:
    """One write a line: processes share the pipe, and print may write its end of line apart."""
    planned = plan_recipe(load_recipe(sys.argv[1], sys.argv[2:]).recipe)
    steering = Steering(planned, distribution.world_size, resumed=False)
    tokens = 0
    while not steering.due(step := planned.timeline.next_step(tokens)):  # pyrefly: ignore
        tokens = step.position_after  # pyrefly: ignore
    same = Reading(1.0, 1.0, 1.0)
    before = steering.decide(step, same)["batch/sequences"]  # pyrefly: ignore
    sys.stdout.write(f"rank {distribution.rank}: {before}\n")
    other = 1.0 + 100 * distribution.rank
    try:
        steering.decide(step, Reading(other, other, other))  # pyrefly: ignore
    except RunError as error:
        sys.stdout.write(f"rank {distribution.rank}: {error.what}\n")


with Distribution.start(RuntimeSettings()) as distribution:
    check(distribution)
