"""Answer questions about the plan of a recipe: memory, time, a budget, the expected loss."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar.core.accelerators import accelerator_named
from feldspar.core.errors import UserError
from feldspar.plan.laws.expectation import expectation_warnings, expected_loss
from feldspar.plan.laws.fitted_law import find_law
from feldspar.plan.laws.law import PARAMETRIC_LAWS, ComputeLaw, ParametricLaw
from feldspar.plan.memory import Machine, device_count
from feldspar.plan.sizing import (
    DEFAULT_TOKENS_PER_PARAMETER,
    size_recipe,
    sizing_warnings,
    split_by_law,
    split_by_rule,
)
from feldspar.plan.summary import Plan
from feldspar.plan.time import (
    DEFAULT_UTILISATION,
    Speed,
    data_sheet_speed,
    measured_speed,
    stated_speed,
)
from feldspar.recipe.load import LoadedRecipe, load_recipe
from feldspar.report.run_report import read_metrics
from feldspar.train.data import plan_loaded, plan_to_train


@dataclass(frozen=True)
class Questions:
    """Questions in addition to the plan itself: the options of ``feldspar plan``."""

    device: str | None = None
    """Name of an accelerator, such as H100."""
    devices: int | None = None
    """Number of devices that train together."""
    utilisation: float | None = None
    """Share of the device's peak that training reaches."""
    tokens_per_second: float | None = None
    """Throughput of all devices together."""
    measured: Path | None = None
    """A run folder whose throughput is used."""
    budget: float | None = None
    """Training FLOPs that the recipe is sized to."""
    tokens_per_parameter: float | None = None
    """Tokens per parameter of the budget's split."""
    law: str | None = None
    """Name or file of a law, which splits the budget or gives the expected loss."""
    law_flops: float | None = None
    """Training FLOPs by the law's own count."""
    measure_products: bool = False
    """Measure the products of masked matrices on this machine, and predict the time saved."""
    inference: bool = False
    """Add the memory and the FLOPs of generating with the trained model."""


@dataclass(frozen=True)
class Sized:
    """A recipe sized to a budget."""

    loaded: LoadedRecipe
    plan: Plan
    record: dict[str, Any]
    """Return the choice as plain values."""
    warnings: list[str]


def answer(loaded: LoadedRecipe, questions: Questions) -> tuple[Plan, dict[str, Any]]:
    """Plan a recipe, sized where a budget is given; return the plan and its summary.

    Raises UserError for questions that contradict each other, the recipe or a law, and for a
    recipe whose mixture training refuses. Of a sized recipe that is a warning.
    """
    _check(questions)
    law = None if questions.law is None else find_law(questions.law)
    sizing, warnings = None, []
    if questions.budget is None:
        planned = plan_to_train(loaded)
    else:
        sized = _sized(loaded, questions, law)
        planned, sizing, warnings = sized.plan, sized.record, sized.warnings
    with loaded.locating_errors():
        accelerator = None if questions.device is None else accelerator_named(questions.device)
        machine = Machine(accelerator, questions.devices)
        summary = planned.summary(machine, _speed(questions, planned, machine))
        expected = None
        if isinstance(law, ComputeLaw):
            expected = expected_loss(planned.recipe, summary["flops"], law, questions.law_flops)
            ratio = summary["tokens"] / summary["parameters"]["total"]
            warnings += expectation_warnings(law, expected["flops"], ratio)
        if questions.measure_products:
            # Loads the optimizers, which take seconds.
            from feldspar.train.measured_products import measure_phases

            _add_measured(summary["phases"], measure_phases(planned))
    summary["warnings"] += warnings
    inference = planned.inference().record() if questions.inference else None
    answers = {"sizing": sizing, "expected_loss": expected, "inference": inference}
    return planned, summary | answers


def size_loaded(
    loaded: LoadedRecipe,
    budget: float,
    tokens_per_parameter: float | None = None,
    law: str | None = None,
) -> Sized:
    """Size a recipe to ``budget`` training FLOPs.

    Raises UserError for a budget below that of the smallest legal shape, and for both ways to split
    the budget at once.
    """
    questions = Questions(budget=budget, tokens_per_parameter=tokens_per_parameter, law=law)
    _check(questions)
    return _sized(loaded, questions, None if law is None else find_law(law))


def _check(questions: Questions) -> None:
    """Raise UserError for an option that needs, or excludes, another one."""
    given = {name for name, value in vars(questions).items() if value is not None}
    for option, needed in (
        ("utilisation", "device"),
        ("tokens_per_parameter", "budget"),
        ("law_flops", "law"),
    ):
        if option in given and needed not in given:
            raise UserError(f"{_option(option)} needs {_option(needed)}")
    for option, other in (
        ("tokens_per_second", "measured"),
        ("tokens_per_second", "utilisation"),
        ("measured", "utilisation"),
    ):
        if {option, other} <= given:
            raise UserError(f"{_option(option)} and {_option(other)} both set the throughput")
    if questions.measure_products and questions.device is not None:
        raise UserError(
            "--measure-products measures this machine, not the accelerator that --device names",
            do="leave out one of them",
        )
    if questions.law in PARAMETRIC_LAWS:
        if questions.budget is None:
            raise UserError(f"--law: {questions.law} splits a budget: give --budget")
        if {"tokens_per_parameter", "law_flops"} & given:
            raise UserError(f"--law: {questions.law} splits the budget by itself")


def _add_measured(phases: list[dict[str, Any]], measured: Sequence[dict[str, Any] | None]) -> None:
    """Add what was measured to the phases of a summary."""
    if all(found is None for found in measured):
        raise UserError(
            "--measure-products: no phase has masks",
            do="leave it out, or give a phase a sparsity",
        )
    for phase, found in zip(phases, measured, strict=True):
        if found is None:
            continue
        masked = phase["masked_products"]
        masked["measured"] = found
        if not found["sparse"] and masked["not_realised"] is None:
            masked["not_realised"] = "dense products are measured as faster here"


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _sized(
    loaded: LoadedRecipe, questions: Questions, law: ComputeLaw | ParametricLaw | None
) -> Sized:
    assert questions.budget is not None
    planned = plan_loaded(loaded)
    with loaded.locating_errors():
        parametric = law if isinstance(law, ParametricLaw) else None
        if parametric is not None:
            split = split_by_law(questions.budget, parametric)
        else:
            ratio = questions.tokens_per_parameter
            split = split_by_rule(
                questions.budget, DEFAULT_TOKENS_PER_PARAMETER if ratio is None else ratio
            )
        sizing = size_recipe(planned, split)
        overrides = [*loaded.overrides, *sizing.overrides]
        resized = load_recipe(loaded.reference, overrides)
        sized = plan_loaded(resized)
        record = sizing.record(sized) | {
            "overrides": overrides,
            "command": shlex.join(["feldspar", "plan", loaded.reference, *overrides]),
        }
        return Sized(resized, sized, record, sizing_warnings(planned, parametric))


def _speed(questions: Questions, planned: Plan, machine: Machine) -> Speed | None:
    if questions.tokens_per_second is not None:
        return stated_speed(questions.tokens_per_second)
    if questions.measured is not None:
        return _measured(questions.measured)
    if machine.accelerator is None:
        return None
    share = questions.utilisation
    return data_sheet_speed(
        machine.accelerator,
        device_count(planned.recipe, machine),
        DEFAULT_UTILISATION if share is None else share,
        planned.recipe,
    )


def _measured(run: Path) -> Speed:
    """Return the throughput of a run folder. Raises UserError for anything else."""
    records = read_metrics(run)
    ran = plan_loaded(load_recipe(str(run)))
    return measured_speed(records, ran.recipe, ran.shapes)
