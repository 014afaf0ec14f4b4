"""A check of the table as `plan --table` prints it, written from the papers' tables by tensor name.

CompleteP (2505.01618, table 1), SmuPar (2405.15743, table 1), Cerebras-GPT and BTLM (2304.03208 and
2309.11568, released configurations). It shares nothing with ``parametrization.tables``.
"""

from dataclasses import dataclass
from typing import Any

import pytest

Printed = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """A model against its base, and the base hyper-parameters."""

    width: float
    inner_width: float
    depth: float
    n_layers: int
    head_dim: int
    init_std: float
    learning_rate: float
    weight_decay: float
    epsilon: float
    embedding: float = 1.0
    output: float = 1.0
    attention: float = 1.0


@dataclass(frozen=True)
class Rules:
    """A parametrization: what it corrects for."""

    width: bool = True
    density: bool = False
    exponent: float | None = None
    """Of the depth rules; they bring width-scaled weight decay and epsilon along."""


RULES = {
    "sp": Rules(width=False),
    "mup": Rules(),
    "supar": Rules(density=True),
    "completep": Rules(exponent=1.0),
    "depth-mup": Rules(exponent=0.5),
    "supar over depth": Rules(density=True, exponent=1.0),
}


def faults(printed: Printed, rules: Rules, sizes: Sizes) -> set[str]:
    """What is wrong: ``QUANTITY of KIND``, and forward multipliers by name."""
    wrong = set()
    for row in printed["tensors"]:
        for quantity, value in expected(row, rules, sizes).items():
            if row[quantity] != pytest.approx(value, rel=1e-12, abs=0):
                wrong.add(f"{quantity} of {kind(row['name'])}")
    scaled = rules.width
    forward = {
        "embedding": sizes.embedding if scaled else 1.0,
        "residual": sizes.depth**-rules.exponent if rules.exponent else 1.0,
        "attention": sizes.attention / sizes.head_dim if scaled else sizes.head_dim**-0.5,
        "output": sizes.output / sizes.width if scaled else 1.0,
    }
    assert printed["forward"].keys() == forward.keys()
    found = printed["forward"].items()
    return wrong | {name for name, value in found if value != pytest.approx(forward[name])}


def kind(name: str) -> str:
    """What a tensor is, by its name alone."""
    outer = {
        "token_embedding.weight": "embedding",
        "position_embedding.weight": "position",
        "output.weight": "head",
    }
    if not name.startswith("blocks."):
        return outer.get(name, "final norm")
    if "_norm." in name:
        return "norm"
    if name.endswith(".bias"):
        return "bias"
    return "block output" if ".output." in name else "hidden"


def expected(row: dict[str, Any], rules: Rules, sizes: Sizes) -> dict[str, float]:
    """What the papers' tables say of one tensor."""
    name, what = row["name"], kind(row["name"])
    hidden, in_block = what in ("hidden", "block output"), name.startswith("blocks.")
    std, rate = sizes.init_std, sizes.learning_rate
    decay, epsilon = sizes.weight_decay, sizes.epsilon
    if hidden and rules.width:
        down = name.endswith("feed_forward.output.weight")
        multiplier = sizes.inner_width if down else sizes.width
        density = row["density"] if rules.density else 1.0
        std /= (multiplier * density) ** 0.5
        rate /= multiplier * density
        if rules.exponent:
            decay *= multiplier
    if what == "block output" and not rules.exponent:
        std /= (2 * sizes.n_layers) ** 0.5
    if in_block and rules.exponent:
        rate *= sizes.depth ** (rules.exponent - 1)
        epsilon /= sizes.width * sizes.depth**rules.exponent
    if what in ("norm", "final norm", "bias"):
        std = decay = 0.0
    return {"init_std": std, "learning_rate": rate, "weight_decay": decay, "epsilon": epsilon}
