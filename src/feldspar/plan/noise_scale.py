"""Check that a recipe's noise scale can be measured, and set the half-life of its averages."""

from collections.abc import Sequence

from feldspar.core.errors import UserError
from feldspar.core.rows import ModelShapes, Role
from feldspar.noise_scale.control.controller import BatchController
from feldspar.plan.memory import Memory
from feldspar.plan.timeline import PhasePlan, Timeline
from feldspar.plan.trained import trained_rows
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.noise_scale import PAPER_FACTOR, NoiseScaleSettings

DEFAULT_SHARE = 100
"""The default half-life is the run's length divided by this number."""
LEAST_STEPS = 64
"""The default half-life has at least so many steps, because averages of fewer are too noisy."""


def half_life_tokens(settings: NoiseScaleSettings, timeline: Timeline) -> int:
    """Return the half-life of the averages in tokens: the weight of a step halves after so many."""
    first = timeline.phases[0]
    if settings.half_life is not None:
        return timeline.interval(settings.half_life, first, "noise_scale.half_life")
    per_step = first.stretches[0].step_length
    return max(timeline.length // DEFAULT_SHARE, LEAST_STEPS * per_step)


def check_noise_scale(recipe: Recipe, shapes: ModelShapes, timeline: Timeline) -> None:
    """Raise UserError where a recipe asks for a noise scale that cannot be measured.

    That is a step of a single sequence, and norm layers in a phase that trains none.
    """
    settings = recipe.noise_scale
    if settings is None:
        return
    for phase, own in zip(timeline.phases, recipe.phases, strict=True):
        key = f"phases.{phase.index}"
        smallest = phase.stretches[0].sequences
        if smallest < 2:
            raise UserError(
                f"{key}.batch: the noise scale needs at least two sequences a step, but this phase "
                f"begins with {smallest}",
                do="enlarge the batch, or leave out noise_scale",
            )
        if own.trains_new_rows_only:
            raise UserError(
                f"{key}.trainable: the noise scale is measured on whole parameters, and this phase "
                "trains some of their rows",
                do="leave out noise_scale, or train all rows",
            )
        trained = trained_rows(recipe, shapes.rows, phase.index)
        by_norms = settings.estimator == "per_example" and settings.coverage == "norm"
        if by_norms and not any(row.role is Role.NORM for row in trained):
            raise UserError(
                f"{key}.trainable: the phase trains no norm layer, which noise_scale.coverage: "
                "norm measures",
                do="set noise_scale.coverage=all, or noise_scale.estimator=microbatch",
            )


def require_processes_to_compare(recipe: Recipe, devices: int) -> None:
    """Raise UserError where ``ranks`` is to compare processes, and there is only one process."""
    settings = recipe.noise_scale
    if settings is not None and settings.estimator == "ranks" and devices < 2:
        raise UserError(
            "noise_scale.estimator: ranks compares the gradients of several processes, and this "
            "plan has one",
            do="plan for as many devices as torchrun will start (--devices 2), or set "
            "noise_scale.estimator=microbatch",
        )


def calibration_warnings(
    recipe: Recipe, timeline: Timeline, memories: Sequence[Memory]
) -> list[str]:
    """Warn of steered phases that begin without two equal micro-batches, which calibration needs.

    ``memories`` holds the memory of each phase, with its micro-batch.
    """
    if recipe.noise_scale is None or recipe.noise_scale.calibrate != "microbatch":
        return []
    found = []
    for phase, memory in zip(timeline.phases, memories, strict=True):
        first = phase.stretches[0].sequences
        share = first // memory.devices
        size = min(memory.micro_batch_sequences, share)
        comparable = memory.devices > 1 or size < share
        if phase.steering is not None and not (comparable and share % size == 0):
            allowed = max(n for n in range(1, share // 2 + 1) if share % n == 0)
            found.append(
                f"phases.{phase.index}.batch: the {first} sequences that it begins with are not "
                f"two or more equal micro-batches (of {size}), which noise_scale.calibrate: "
                f"microbatch compares; until it grows, the factor is {PAPER_FACTOR}: set "
                f"runtime.micro_batch_sequences={allowed}"
            )
    return found


def steering_of(
    recipe: Recipe, phase: PhasePlan, timeline: Timeline, quantum: int | None = None
) -> BatchController:
    """Return the controller of a steered phase at the phase's beginning.

    ``quantum``: the recipe's unless given. Raises UserError where no batch fits between its bounds.
    """
    assert phase.steering is not None and recipe.noise_scale is not None, "checked by the recipe"
    return BatchController(
        phase.steering,
        quantum or phase.steering.quantum_sequences,
        half_life_tokens(recipe.noise_scale, timeline),
        phase.warmup_length,
    )
