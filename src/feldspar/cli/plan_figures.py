"""Print a plan and the table of a parametrization."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from feldspar.cli.tables import print_table
from feldspar.core.readable import counted, size_text

if TYPE_CHECKING:
    from feldspar.train.time_here import TimeHere


def print_plan(summary: Mapping[str, Any], here: "TimeHere | None" = None) -> None:
    """Print a plan: what it takes and gives, then phases and data, then FLOPs and other answers.

    ``here`` is the time on this machine, printed where the summary holds no other time.
    """
    counts = summary["parameters"]
    typer.echo(f"{summary['name']}")
    if summary.get("sizing"):
        _print_sizing(summary["sizing"])
    if summary["time"]:
        _print_time(summary["time"])
    elif here is not None:
        _print_time_here(here)
    typer.echo(f"  exported as {summary['export']['description']}")
    _print_memory(summary["memory"])
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
    for phase in summary["phases"]:
        _print_phase(phase, counts["total"])
    _print_data(summary["data"])
    _print_validation(summary["validation"])
    for convention, flops in summary["flops"].items():
        note = _realised(summary["phases"]) if convention == "ledger" else ""
        typer.echo(f"  FLOPs       {flops:.4g} by {convention}{note}")
    if summary.get("expected_loss"):
        _print_expected_loss(summary["expected_loss"])
    if summary.get("inference"):
        _print_inference(summary["inference"])
    for warning in summary["warnings"]:
        typer.echo(f"  warning     {warning}")
    if summary.get("sizing"):
        typer.echo(summary["sizing"]["command"])


def _realised(phases: Sequence[Mapping[str, Any]]) -> str:
    """Return a note on the FLOPs that masks save: whether a run skips them."""
    masked = [phase["masked_products"] for phase in phases if "masked_products" in phase]
    if not masked:
        return ""
    reasons = dict.fromkeys(entry["not_realised"] for entry in masked)
    if None not in reasons:
        return f" (FLOPs not realised: {'; '.join(reasons)})"
    measured = [entry["measured"]["realised"] for entry in masked if "measured" in entry]
    if measured:
        shares = " and ".join(f"{share:.0%}" for share in dict.fromkeys(measured))
        return f" ({shares} of the FLOPs that masks save are realised here)"
    return " (realised where sparse products are measured as faster)"


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
    """Return a number of steps, or its bounds where the noise scale decides it."""
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
    for kind in ("pairs", "messages"):
        if phase.get(kind) is not None:
            _print_examples(phase["name"], kind, phase[kind])
    if phase["trainable_parameters"] < parameters:
        lora = f" (LoRA of rank {phase['lora']['rank']})" if "lora" in phase else ""
        typer.echo(
            f"  phase {phase['name']}: {phase['trainable_parameters']:,} trainable parameters"
            f"{lora}, {phase['ledger']['total']:.4g} FLOPs by ledger"
        )
    if phase["active_parameters"] < parameters:
        typer.echo(
            f"  phase {phase['name']}: {phase['active_parameters']:,} active parameters, "
            f"{phase['ledger']['total']:.4g} FLOPs by ledger "
            f"({phase['ledger']['total_causal']:.4g} with causal attention)"
        )
    if "moving_masks" in phase:
        _print_moves(phase["name"], phase["moving_masks"])
    if "measured" in phase.get("masked_products", {}):
        _print_products(phase["name"], phase["masked_products"])
    if "sparse_iso_flop" in phase:
        _print_iso_flop(phase["name"], phase["sparse_iso_flop"])


def _print_products(name: str, masked: Mapping[str, Any]) -> None:
    """Print the measured products of masked matrices, and the step that follows from them."""
    measured, step = masked["measured"], masked["measured"]["step"]
    threads = counted(measured["threads"], "thread")
    where = threads if measured["device"] == "cpu" else measured["device"]
    typer.echo(
        f"  phase {name}: sparse products for {measured['sparse']} of {masked['masked']} masked "
        f"matrices (measured here, {where}, {measured['precision']})"
    )
    for product in measured["products"]:
        kept = product["kept"] / (product["rows"] * product["columns"])
        typer.echo(
            f"    {product['matrices']} of {product['rows']} x {product['columns']}, {kept:.1%} "
            f"kept: {product['times_as_fast']:.2f} times as fast as dense"
        )
    if step is not None:
        typer.echo(
            f"    a step of {step['tokens']:,} tokens takes {step['sparse_seconds']:.3g} s, with "
            f"dense products {step['dense_seconds']:.3g} s ({step['times_as_fast']:.2f} times as "
            f"fast); masked matrices are {step['masked_share']:.0%} of the dense step"
        )


def _print_iso_flop(name: str, compared: Mapping[str, Any]) -> None:
    """Print forward FLOPs beside those of the dense model; equal blocks are not an equal model."""
    shown = [
        f"{label} {part['flops']:.4g} against {part['dense']:.4g} ({part['ratio']:.3f} times)"
        for label, part in (
            ("blocks", compared["blocks"]),
            ("with attention scores and head", compared["total"]),
        )
    ]
    typer.echo(
        f"  phase {name}: {compared['type']} at {compared['sparsity']:.4g} against its dense "
        f"model, forward FLOPs a token: {'; '.join(shown)}"
    )


def _print_moves(name: str, moves: Mapping[str, Any]) -> None:
    times = moves["flops_over_static"]
    cost = f"; meanwhile {times:.5f}x the FLOPs of static masks" if times > 1 else ""
    typer.echo(
        f"  phase {name}: {moves['type']} moves the masks {moves['moves']:,} times, every "
        f"{moves['every_tokens']:,} tokens from {moves['begin_tokens']:,} to "
        f"{moves['end_tokens']:,}{cost}"
    )


def _print_examples(name: str, kind: str, examples: Mapping[str, Any]) -> None:
    size = "an unknown number of tokens"
    if examples["tokens"] is not None:
        size = f"{examples['tokens']:,} tokens with padding, {examples['epochs']:.3g} epochs"
    vectors = examples["soft_prompt_length"]
    prompt = f", {vectors} soft vectors each" if vectors else ""
    typer.echo(f"  phase {name}: {kind} of {examples['path']} ({size}){prompt}")


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
    devices = counted(memory["devices"], "device")
    split = f" in {memory['shards']} shards" if memory["shards"] > 1 else ""
    typer.echo(
        f"              {devices}, {memory['distribution']}{split}, {memory['precision']}, "
        f"micro-batches of {memory['micro_batch_sequences']} x {memory['context_length']}, "
        f"activations: {memory['activation_memory']}"
    )


def _print_time(time: Mapping[str, Any]) -> None:
    phases = ""
    if len(time["phases"]) > 1:
        shown = ", ".join(f"{phase['name']} {_hours(phase['hours'])}" for phase in time["phases"])
        phases = f" ({shown})"
    typer.echo(
        f"  time        {_hours(time['hours'])}{phases}, {time['tokens_per_second']:,.0f} tokens "
        f"and {time['flops_per_second']:.3g} FLOPs a second, {time['source']}"
    )


def _print_time_here(here: "TimeHere") -> None:
    if here.hours is None:
        typer.echo(f"  time        it cannot run on this machine: {here.basis}")
    else:
        about = rough_time(here.hours)
        typer.echo(f"  time        about {about} on this machine ({here.basis}; an estimate)")


def _hours(hours: float) -> str:
    """Write hours, or minutes below one hour."""
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.2g} minutes"


def rough_time(hours: float) -> str:
    """Write an estimate in the unit that suits it, from seconds to years."""
    for unit, size, least in (
        ("years", 8766.0, 8766.0),
        ("days", 24.0, 48.0),
        ("hours", 1.0, 1.0),
        ("minutes", 1 / 60, 1 / 60),
    ):
        if hours >= least:
            amount = hours / size
            return f"{amount:,.0f} {unit}" if amount >= 10 else f"{amount:.2g} {unit}"
    return f"{max(3600 * hours, 1):.0f} seconds"


def _print_data(data: Mapping[str, Any]) -> None:
    if data["unknown"] is not None:
        typer.echo(f"  data        known when it is built: {data['unknown']}")
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


def _print_inference(cost: Mapping[str, Any]) -> None:
    """Print what it takes to generate one sequence with the trained model."""
    sizes = ", ".join(
        f"{size_text(size)} at {bits} bits" for bits, size in cost["weights_bytes"].items()
    )
    typer.echo(f"  inference   weights {sizes}")
    typer.echo(
        f"              cache {size_text(cost['cache_bytes'])} for {cost['context_length']:,} "
        f"tokens at 16 bits ({size_text(cost['cache_bytes_per_token'])} a token)"
    )
    typer.echo(
        f"              {cost['first_token_flops']:.4g} FLOPs for the first token, "
        f"{cost['last_token_flops']:.4g} for one that sees {cost['context_length']:,} tokens"
    )


def print_parametrization(summary: Mapping[str, Any]) -> None:
    """Print the table of the parametrization."""
    typer.echo(f"parametrization {summary['type']}")
    for name, factor in summary["forward"].items():
        typer.echo(f"  forward multiplier {name:9} {factor:.7g}")
    print_table(
        (
            "tensor",
            "role",
            "shape",
            "density",
            "init_std",
            "learning_rate",
            "weight_decay",
            "epsilon",
        ),
        (
            (
                row["name"],
                row["role"],
                "x".join(map(str, row["shape"])),
                f"{row['density']:.5g}",
                f"{row['init_std']:.6g}",
                f"{row['learning_rate']:.6g}",
                f"{row['weight_decay']:.4g}",
                f"{row['epsilon']:.3g}",
            )
            for row in summary["tensors"]
        ),
        left=3,
        indent=2,
    )
