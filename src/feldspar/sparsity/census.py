"""Count what masks keep: the density of each part of a block, and units without gradients.

A unit is dead if the whole row that feeds it and the whole column that reads it are masked: its
gradient is zero on both sides, even after the masks are dropped. Units are those of the
feed-forward branch and the channels of attention values. A unit of a gated branch has two rows; one
masked row is enough. Queries and keys have no units, because positions may rotate their channels
together.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

from torch import Tensor

from feldspar.core.rows import ModelShapes
from feldspar.sparsity.masks import Masks

FUSED, ATTENTION_OUTPUT = "attention.query_key_value.weight", "attention.output.weight"
INNER, INNER_OUTPUT = "feed_forward.input.weight", "feed_forward.output.weight"


@dataclass(frozen=True)
class Census:
    """Counts over all masked matrices of a decoder."""

    entries: int
    kept: int
    density_by_part: dict[str, float]
    """Kept share over all blocks; a fused matrix is counted by parts."""
    units: int
    dead_units: int


def take_census(masks: Masks, shapes: ModelShapes) -> Census:
    """Count what the masks of a decoder with these shapes keep."""
    kept: dict[str, int] = defaultdict(int)
    entries: dict[str, int] = defaultdict(int)
    for name, mask in masks.tensors.items():
        for part, rows in _parts(name, mask, shapes).items():
            kept[part] += int(rows.sum())
            entries[part] += rows.numel()
    alive = [units for name in masks.tensors for units in _alive_units(name, masks, shapes)]
    return Census(
        entries=sum(entries.values()),
        kept=sum(kept.values()),
        density_by_part={part: kept[part] / entries[part] for part in kept},
        units=sum(units.numel() for units in alive),
        dead_units=sum(int((~units).sum()) for units in alive),
    )


def _parts(name: str, mask: Tensor, shapes: ModelShapes) -> dict[str, Tensor]:
    """Return the rows of each part of a matrix."""
    if name.endswith(FUSED):
        query_width, key_width = _attention_widths(name, mask, shapes)
        query, key, value = mask.split([query_width, key_width, key_width])
        return {"attention.query": query, "attention.key": key, "attention.value": value}
    if name.endswith(INNER) and len(mask) == 2 * shapes.d_ff:
        gate, up = mask.chunk(2)
        return {"feed_forward.gate": gate, "feed_forward.up": up}
    # Names of decoders begin with blocks.N; the parts of all blocks count together.
    return {re.sub(r"^blocks\.\d+\.|\.weight$", "", name): mask}


def _alive_units(name: str, masks: Masks, shapes: ModelShapes) -> list[Tensor]:
    """Return for each unit that the matrix feeds whether it has a row or a column left."""
    if name.endswith(FUSED):
        reader = masks.tensors.get(name.removesuffix(FUSED) + ATTENTION_OUTPUT)
        fed = _parts(name, masks.tensors[name], shapes)["attention.value"].any(1)
        if reader is None:
            return []
        # Several query heads may share a value head: (value heads, sharers, channels).
        read = reader.any(0).view(len(fed) // shapes.head_dim, -1, shapes.head_dim).any(1)
        return [fed | read.flatten()]
    if name.endswith(INNER):
        reader = masks.tensors.get(name.removesuffix(INNER) + INNER_OUTPUT)
        if reader is None:
            return []
        rows = masks.tensors[name].any(1).view(-1, shapes.d_ff)
        return [rows.all(0) | reader.any(0)]
    return []


def _attention_widths(name: str, mask: Tensor, shapes: ModelShapes) -> tuple[int, int]:
    """Return the rows of queries and of keys in a fused matrix."""
    output = name.removesuffix(FUSED) + ATTENTION_OUTPUT
    query_width = next(row.shape[1] for row in shapes.rows if row.name == output)
    return query_width, (len(mask) - query_width) // 2
