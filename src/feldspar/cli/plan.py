"""``feldspar plan``: what a recipe costs and what a budget buys, before anything is spent."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from feldspar.plan.memory import Machine
    from feldspar.plan.summary import Plan
    from feldspar.plan.time import Speed

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. choose.size=590M")
]


@dataclass(frozen=True)
class Questions:
    """What was asked beside the plan itself."""

    recipe: str
    overrides: list[str]
    device: str | None
    devices: int | None
    utilisation: float | None
    tokens_per_second: float | None
    measured: Path | None
    budget: float | None
    tokens_per_parameter: float | None
    law: str | None
    law_flops: float | None


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def plan(
        recipe: Annotated[str, typer.Argument(help="Recipe file or shipped name.")],
        overrides: Overrides = None,
        table: Annotated[
            bool, typer.Option("--table", help="Print the parametrization table too.")
        ] = False,
        device: Annotated[
            str | None, typer.Option("--device", help="Accelerator, e.g. H100: memory and time.")
        ] = None,
        devices: Annotated[
            int | None, typer.Option("--devices", help="How many devices train together.")
        ] = None,
        utilisation: Annotated[
            float | None,
            typer.Option("--utilisation", help="Share of the device's peak; default 0.4."),
        ] = None,
        tokens_per_second: Annotated[
            float | None, typer.Option("--tokens-per-second", help="Speed of all devices: time.")
        ] = None,
        measured: Annotated[
            Path | None, typer.Option("--measured", help="A run folder: time at its speed.")
        ] = None,
        budget: Annotated[
            float | None,
            typer.Option("--budget", help="Training FLOPs: size the recipe to them."),
        ] = None,
        tokens_per_parameter: Annotated[
            float | None,
            typer.Option("--tokens-per-parameter", help="Split of the budget; default 20."),
        ] = None,
        law: Annotated[
            str | None,
            typer.Option("--law", help="Law, by name or scaling.json: expected loss, or a split."),
        ] = None,
        law_flops: Annotated[
            float | None,
            typer.Option("--law-flops", help="Training FLOPs as the law's own paper counts them."),
        ] = None,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Print what a recipe will cost and do, or what a budget buys, without weights.

        Example: feldspar plan cerebras-gpt/paper choose.parametrization=mup --budget 1e19
        --device H100 --devices 8
        """
        from feldspar.cli.console import print_json

        questions = Questions(
            recipe,
            overrides or [],
            device,
            devices,
            utilisation,
            tokens_per_second,
            measured,
            budget,
            tokens_per_parameter,
            law,
            law_flops,
        )
        planned, summary = answer(questions)
        if table:
            from feldspar.plan.summary import effective_table

            summary |= effective_table(planned.table, planned.recipe.optimizer)
        if json:
            print_json(summary)
            return
        print_plan(summary)
        if table:
            print_table(summary)


def answer(questions: Questions) -> tuple["Plan", dict[str, Any]]:
    """The plan, sized where a budget was given, and all that is known of it.

    Raises UserError for questions that contradict each other, the recipe or a law.
    """
    from feldspar.core.accelerators import accelerator_named
    from feldspar.plan.laws.fitted_law import find_law
    from feldspar.plan.laws.law import ComputeLaw
    from feldspar.recipe.load import load_recipe

    _check(questions)
    law = None if questions.law is None else find_law(questions.law)
    loaded = load_recipe(questions.recipe, questions.overrides)
    from feldspar.plan.laws.expectation import expectation_warnings, expected_loss  # loads torch
    from feldspar.plan.memory import Machine
    from feldspar.train.data import plan_loaded

    planned = plan_loaded(loaded)
    with loaded.locating_errors():
        sizing, warnings = None, []
        if questions.budget is not None:
            planned, sizing, warnings = _sized(questions, planned, law)
        accelerator = None if questions.device is None else accelerator_named(questions.device)
        machine = Machine(accelerator, questions.devices)
        summary = planned.summary(machine, _speed(questions, planned, machine))
        expected = None
        if isinstance(law, ComputeLaw):
            expected = expected_loss(planned.recipe, summary["flops"], law, questions.law_flops)
            ratio = summary["tokens"] / summary["parameters"]["total"]
            warnings += expectation_warnings(law, expected["flops"], ratio)
    summary["warnings"] += warnings
    return planned, summary | {"sizing": sizing, "expected_loss": expected}


def _check(questions: Questions) -> None:
    """Raise UserError for an option that means nothing without, or beside, another."""
    from feldspar.core.errors import UserError
    from feldspar.plan.laws.law import PARAMETRIC_LAWS

    given = {name for name, value in vars(questions).items() if value is not None}
    for option, needed in (
        ("utilisation", "device"),
        ("tokens_per_parameter", "budget"),
        ("law_flops", "law"),
    ):
        if option in given and needed not in given:
            raise UserError(f"{_option(option)} means nothing without {_option(needed)}")
    for option, other in (
        ("tokens_per_second", "measured"),
        ("tokens_per_second", "utilisation"),
        ("measured", "utilisation"),
    ):
        if {option, other} <= given:
            raise UserError(f"{_option(option)} and {_option(other)} both state the speed")
    if questions.law in PARAMETRIC_LAWS:
        if questions.budget is None:
            raise UserError(f"--law: {questions.law} splits a budget: give --budget")
        if {"tokens_per_parameter", "law_flops"} & given:
            raise UserError(f"--law: {questions.law} splits the budget by itself")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _sized(
    questions: Questions, planned: "Plan", law: Any
) -> tuple["Plan", dict[str, Any], list[str]]:
    """The plan of the recipe that the budget buys, how it was found, and what is in doubt."""
    import shlex

    from feldspar.plan.laws.law import ParametricLaw
    from feldspar.plan.sizing import (
        DEFAULT_TOKENS_PER_PARAMETER,
        size_recipe,
        sizing_warnings,
        split_by_law,
        split_by_rule,
    )
    from feldspar.recipe.load import load_recipe
    from feldspar.train.data import plan_loaded

    assert questions.budget is not None
    parametric = law if isinstance(law, ParametricLaw) else None
    if parametric is not None:
        split = split_by_law(questions.budget, parametric)
    else:
        ratio = questions.tokens_per_parameter
        split = split_by_rule(
            questions.budget, DEFAULT_TOKENS_PER_PARAMETER if ratio is None else ratio
        )
    sizing = size_recipe(planned, split)
    overrides = [*questions.overrides, *sizing.overrides]
    sized = plan_loaded(load_recipe(questions.recipe, overrides))
    record = sizing.record(sized) | {
        "overrides": overrides,
        "command": shlex.join(["feldspar", "plan", questions.recipe, *overrides]),
    }
    return sized, record, sizing_warnings(planned, parametric)


def _speed(questions: Questions, planned: "Plan", machine: "Machine") -> "Speed | None":
    from feldspar.plan.memory import device_count
    from feldspar.plan.time import DEFAULT_UTILISATION, data_sheet_speed, stated_speed

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


def _measured(run: Path) -> "Speed":
    """The speed of a run folder. Raises UserError for anything else."""
    from feldspar.plan.time import measured_speed
    from feldspar.recipe.load import load_recipe
    from feldspar.report.run_report import read_metrics
    from feldspar.train.data import plan_loaded

    records = read_metrics(run)
    ran = plan_loaded(load_recipe(str(run)))
    return measured_speed(records, ran.recipe, ran.shapes)


def print_plan(summary: Mapping[str, Any]) -> None:
    """The plan for people: totals, one row a phase, then what was asked."""
    counts = summary["parameters"]
    typer.echo(f"{summary['name']}")
    if summary.get("sizing"):
        _print_sizing(summary["sizing"])
    typer.echo(
        f"  parameters  {counts['total']:,} ({counts['non_embedding']:,} without embeddings)"
        + (f", {counts['active']:,} active" if "active" in counts else "")
    )
    typer.echo(
        f"  tokens      {summary['tokens']:,} "
        f"({summary['tokens'] / counts['total']:.1f} per parameter)"
    )
    steps = _between(summary["fewest_steps"], summary["steps"])
    typer.echo(f"  steps       {steps} (warm-up {summary['warmup_steps']:,})")
    for convention, flops in summary["flops"].items():
        note = " (FLOPs not realised: masked products run dense)" if convention == "ledger" else ""
        typer.echo(f"  FLOPs       {flops:.4g} by {convention}{note if 'active' in counts else ''}")
    for phase in summary["phases"]:
        _print_phase(phase, counts["total"])
    _print_memory(summary["memory"])
    if summary["time"]:
        _print_time(summary["time"])
    _print_data(summary["data"])
    _print_validation(summary["validation"])
    typer.echo(f"  exported as {summary['export']['description']}")
    if summary.get("expected_loss"):
        _print_expected_loss(summary["expected_loss"])
    for warning in summary["warnings"]:
        typer.echo(f"  warning     {warning}")
    if summary.get("sizing"):
        typer.echo(summary["sizing"]["command"])


def _print_sizing(sizing: Mapping[str, Any]) -> None:
    ideal, shape = sizing["ideal"], sizing["shape"]
    typer.echo(
        f"  budget      {sizing['budget_flops']:.4g} FLOPs by {sizing['convention']}, "
        f"{sizing['rule']}: ideally {ideal['parameters']:.4g} parameters and "
        f"{ideal['tokens']:.4g} tokens"
    )
    heads = f"{shape['n_heads']} heads of {shape['head_dim']}"
    typer.echo(
        f"  shape       {shape['n_layers']} layers of {shape['d_model']} ({heads}, d_ff "
        f"{shape['d_ff']}), aspect {sizing['aspect']:.0f}; {sizing['batch_tokens']:,} tokens a step"
    )
    factors = sizing["hidden_learning_rate_multipliers"]
    if set(factors.values()) == {1.0}:
        return
    shown = ", ".join(f"{name} {value:.4g}" for name, value in factors.items())
    if len(set(factors.values())) == 1:
        shown = f"{next(iter(factors.values())):.4g} for all hidden matrices"
    typer.echo(f"  rates       learning-rate multiplier {shown}")


def _between(fewest: int, most: int) -> str:
    """A number of steps, or its bounds where the noise scale settles it."""
    return f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"


def _print_phase(phase: Mapping[str, Any], parameters: int) -> None:
    first, last = phase["sequences"]
    batch = f"{first}" if first == last else f"{first} to {last}"
    steps = _between(phase["fewest_steps"], phase["steps"])
    rate = " to ".join(f"{value:.4g}" for value in phase["learning_rate"])
    typer.echo(
        f"  phase {phase['name']}: {phase['tokens']:,} tokens, {steps} steps of "
        f"{batch} sequences x {phase['context_length']}, learning rate {rate}"
    )
    if phase["pairs"] is not None:
        _print_pairs(phase["name"], phase["pairs"])
    if phase["trainable_parameters"] < parameters:
        typer.echo(
            f"  phase {phase['name']}: {phase['trainable_parameters']:,} trainable parameters"
        )
    if phase["active_parameters"] < parameters:
        typer.echo(
            f"  phase {phase['name']}: {phase['active_parameters']:,} active parameters, "
            f"{phase['ledger']['total']:.4g} FLOPs by ledger "
            f"({phase['ledger']['total_causal']:.4g} with causal attention)"
        )


def _print_pairs(name: str, pairs: Mapping[str, Any]) -> None:
    size = "an unknown number of tokens"
    if pairs["tokens"] is not None:
        size = f"{pairs['tokens']:,} tokens with padding, {pairs['epochs']:.3g} epochs"
    vectors = pairs["soft_prompt_length"]
    prompt = f", {vectors} soft vectors each" if vectors else ""
    typer.echo(f"  phase {name}: pairs of {pairs['path']} ({size}){prompt}")


def _print_memory(memory: Mapping[str, Any]) -> None:
    parts = {
        "weights": "weights_bytes",
        "gradients": "gradients_bytes",
        "moments": "optimizer_bytes",
        "masks": "masks_bytes",
        "working copies": "working_weights_bytes",
        "activations": "activations_bytes",
        "head": "head_bytes",
    }
    shown = ", ".join(
        f"{name} {size_text(memory[key])}" for name, key in parts.items() if memory[key]
    )
    room = "" if memory["device_bytes"] is None else f" of {size_text(memory['device_bytes'])}"
    typer.echo(f"  memory      {size_text(memory['total_bytes'])}{room} a device: {shown}")
    devices = f"{memory['devices']} devices" if memory["devices"] > 1 else "1 device"
    split = f" in {memory['shards']} shards" if memory["shards"] > 1 else ""
    typer.echo(
        f"              {devices}, {memory['distribution']}{split}, {memory['precision']}, "
        f"micro-batches of {memory['micro_batch_sequences']} x {memory['context_length']}, "
        f"activations: {memory['activation_memory']}"
    )


def size_text(count: int) -> str:
    """Bytes in decimal units."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _print_time(time: Mapping[str, Any]) -> None:
    phases = ""
    if len(time["phases"]) > 1:
        shown = ", ".join(f"{phase['name']} {_hours(phase['hours'])}" for phase in time["phases"])
        phases = f" ({shown})"
    typer.echo(
        f"  time        {_hours(time['hours'])}{phases}, {time['tokens_per_second']:,.0f} tokens "
        f"and {time['flops_per_second']:.3g} FLOPs a second, {time['source']}"
    )


def _hours(hours: float) -> str:
    """Hours, or minutes where there are few."""
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.2g} minutes"


def _print_data(data: Mapping[str, Any]) -> None:
    if data["unknown"] is not None:
        typer.echo(f"  data        unknown: {data['unknown']}")
        return
    for name, source in data["sources"].items():
        size = "an unknown number of tokens"
        if source["tokens"] is not None:
            size = f"{source['tokens']:,} tokens, {source['epochs']:.3g} epochs"
        typer.echo(f"  data        {source['read_tokens']:,} tokens of {name} ({size})")
    for phase in data["phases"] if len(data["phases"]) > 1 < len(data["sources"]) else []:
        for name, entry in phase["sources"].items():
            passes = "" if entry["epochs"] is None else f", {entry['epochs']:.3g} epochs"
            share = f"{entry['probability']:.4%} {entry['part'] or name}"
            typer.echo(f"    {phase['name']}: {share}, {entry['tokens']:,} tokens{passes}")


def _print_validation(validation: Mapping[str, Any]) -> None:
    share = validation["share"]
    cost = "" if share is None else f": {share:.1%} of the training's FLOPs"
    typer.echo(
        f"  validation  {validation['times']:,} times at most, {validation['sequences']:,} "
        f"sequences a source{cost}"
    )


def _print_expected_loss(expected: Mapping[str, Any]) -> None:
    low, high = expected["interval"]
    typer.echo(
        f"  loss        {expected['loss']:.4g} {expected['unit']} on {expected['data_set']} (95 %: "
        f"{low:.4g} to {high:.4g}) by the law {expected['law']} at {expected['flops']:.4g} FLOPs"
    )


def print_table(summary: Mapping[str, Any]) -> None:
    """The parametrization table for people."""
    typer.echo(f"parametrization {summary['type']}")
    for name, factor in summary["forward"].items():
        typer.echo(f"  forward multiplier {name:9} {factor:.7g}")
    width = max(len(row["name"]) for row in summary["tensors"])
    header = ("role", "shape", "density", "init_std", "learning_rate", "weight_decay", "epsilon")
    typer.echo(f"  {'tensor':{width}} {header[0]:9} {header[1]:14} " + " ".join(header[2:]))
    for row in summary["tensors"]:
        shape = "x".join(map(str, row["shape"]))
        typer.echo(
            f"  {row['name']:{width}} {row['role']:9} {shape:14} {row['density']:<7.5g} "
            f"{row['init_std']:<8.6g} {row['learning_rate']:<13.6g} "
            f"{row['weight_decay']:<12.4g} {row['epsilon']:.3g}"
        )
