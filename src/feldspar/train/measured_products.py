"""Predict from measurements on this machine the time that sparse products save.

The products of each kind of masked matrix are timed, sparse and dense, and chosen by the run's own
rule. A step with dense products is timed by models of one and of two blocks. With sparse products
it takes less by the time that each chosen matrix saves.
"""

from collections import Counter
from typing import Any

import torch

from feldspar.plan.masked_products import masked_kinds
from feldspar.plan.memory import phase_memories
from feldspar.plan.products import ALL
from feldspar.plan.summary import ONE_DEVICE, Plan
from feldspar.recipe.sections.sparsity import MaskedSettings
from feldspar.runtime.allocator import keep_freed_pages
from feldspar.runtime.device import choose_device, choose_precision
from feldspar.runtime.threads import set_threads
from feldspar.sparsity.choice import Choice, Kind, choose_products
from feldspar.sparsity.density import sparsities
from feldspar.sparsity.masks import draw_row
from feldspar.sparsity.products import MOST_TOKENS
from feldspar.train.masked_products import wanted_products
from feldspar.train.step_timing import time_step

RECOMPUTED = (ALL + 1) / ALL
"""Products of a step over those without recomputation, where the forward pass runs twice."""


def measure_phases(plan: Plan) -> list[dict[str, Any] | None]:
    """Measure the products of each phase, as plain values; None for a phase without masks.

    Masks that are pruned are those at the end of their phase. Raises SetupError where models of one
    and of two blocks do not fit into memory.
    """
    threads = torch.get_num_threads()
    try:
        set_threads(plan.recipe.runtime)
        keep_freed_pages()  # as in training
        return [_measure(plan, index) for index in range(len(plan.timeline.phases))]
    finally:
        torch.set_num_threads(threads)


def _measure(plan: Plan, index: int) -> dict[str, Any] | None:
    recipe, rows = plan.recipe, {row.name: row for row in plan.shapes.rows}
    settings, kinds = recipe.sparsity(index), masked_kinds(recipe, plan.shapes.rows, index)
    if not kinds or not isinstance(settings, MaskedSettings):
        return None
    shares = sparsities(settings, plan.shapes.rows)
    device = choose_device(recipe.runtime)
    precision = choose_precision(recipe.runtime, device)
    memory = phase_memories(recipe, plan.timeline, ONE_DEVICE)[index]
    choice = choose_products(
        kinds,
        lambda name: draw_row(rows[name], shares[name], settings, recipe.seed),
        wanted_products(recipe.runtime, device),
        memory.micro_batch_sequences * memory.context_length,
        precision,
        device,
    )
    return {
        "device": device.type,
        "precision": str(precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "sparse": len(choice.matrices),
        "realised": _realised(choice, kinds, device),
        "products": _products(choice, kinds),
        "step": _step(plan, index, choice, kinds, memory.micro_batch_sequences),
    }


def _step(
    plan: Plan, index: int, choice: Choice, kinds: dict[str, Kind], micro_batch: int
) -> dict[str, float] | None:
    """Predict the seconds of the phase's largest step, dense and sparse.

    None where no matrix is sparse, and in a phase that trains a part of the model only.
    """
    recipe, phase = plan.recipe, plan.timeline.phases[index]
    settings = recipe.phases[index]
    if not choice.matrices or settings.lora is not None or settings.trainable != "all":
        return None
    sequences = max(min(micro_batch, MOST_TOKENS // phase.context_length), 1)
    timing = time_step(recipe, index, sequences)
    tokens = phase.largest_sequences * phase.context_length
    factor = tokens * (1.0 if recipe.runtime.activation_memory == "store" else RECOMPUTED)
    speeds = {name: choice.speeds[kind] for name, kind in kinds.items() if kind in choice.speeds}
    products = factor * sum(speed.dense / speed.tokens for speed in speeds.values())
    dense = max(timing.seconds(recipe.model.n_layers, tokens), products)  # a step has them all
    saved = factor * sum(
        (speeds[name].dense - speeds[name].sparse) / speeds[name].tokens for name in choice.matrices
    )
    return {
        "tokens": tokens,
        "dense_seconds": dense,
        "sparse_seconds": dense - saved,
        "times_as_fast": dense / (dense - saved),
        "masked_share": products / dense,
    }


def _realised(choice: Choice, kinds: dict[str, Kind], device: torch.device) -> float:
    """Return the share of the FLOPs of masked entries that the chosen products skip."""
    passes = 1 if device.type == "cuda" else ALL
    dropped = {name: kind.entries - kind.kept for name, kind in kinds.items()}
    return passes / ALL * sum(dropped[name] for name in choice.matrices) / sum(dropped.values())


def _products(choice: Choice, kinds: dict[str, Kind]) -> list[dict[str, Any]]:
    """Return the kinds that were tried, with their speeds, as plain values."""
    counts, chosen = Counter(kinds.values()), {kinds[name] for name in choice.matrices}
    return [
        {
            "rows": kind.rows,
            "columns": kind.columns,
            "kept": kind.kept,
            "matrices": counts[kind],
            "times_as_fast": speed.ratio,
            "sparse": kind in chosen,
        }
        for kind, speed in choice.speeds.items()
    ]
