"""Parameter rows: facts about a tensor that a parametrization, a mask or a planner needs.

A module declares the roles of its own parameters (``parameter_roles``: local name -> role), and
``model.rows`` reads the rows off a module. A foreign module declares nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from math import prod
from typing import Any, Literal

from feldspar.core.errors import UserError


class Role(StrEnum):
    """The function of a parameter in the network, which decides how it scales with width."""

    EMBEDDING = "embedding"
    POSITION = "position"
    HIDDEN = "hidden"
    OUTPUT = "output"
    NORM = "norm"
    BIAS = "bias"
    PROMPT = "prompt"
    LORA_A = "lora_a"
    LORA_B = "lora_b"


class FanIn(StrEnum):
    """The model dimension that a matrix sums over, which decides the base size of its
    multiplier.
    """

    D_MODEL = "d_model"
    D_FF = "d_ff"
    D_MODEL_AND_D_FF = "d_model_and_d_ff"
    """A width in proportion to d_model x d_ff / (d_model + d_ff)."""


@dataclass(frozen=True)
class ParameterRole:
    """A module's declaration for one of its own parameters."""

    role: Role
    fan_in: FanIn = FanIn.D_MODEL
    writes_residual: bool = False
    initial_mean: float = 0.0
    maskable: bool = True
    """False for a hidden matrix that stays dense in a sparse model."""


@dataclass(frozen=True)
class ParameterRow:
    """One tensor: its full name, role, shape and place in the network."""

    name: str
    role: Role
    shape: tuple[int, ...]
    fan_in: FanIn = FanIn.D_MODEL
    in_block: bool = False
    writes_residual: bool = False
    initial_mean: float = 0.0
    maskable: bool = True

    @property
    def count(self) -> int:
        """The number of entries of the tensor."""
        return prod(self.shape)


@dataclass(frozen=True)
class ModelShapes:
    """The rows of a model and the dimensions that multipliers are computed from."""

    d_model: int
    d_ff: int
    n_layers: int
    head_dim: int
    rows: tuple[ParameterRow, ...] = field(repr=False)

    @property
    def parameters(self) -> int:
        """The number of all entries; tied tensors count once."""
        return sum(row.count for row in self.rows)


ParameterRoles = Mapping[str, ParameterRole]


def chosen_rows(
    rows: Iterable[ParameterRow], chosen: Literal["all"] | Iterable[str], key: str
) -> tuple[ParameterRow, ...]:
    """Return the rows that ``chosen`` names by role or by a glob of names, in their order.

    Raises UserError, with the recipe's ``key``, for an entry that matches nothing.
    """
    rows = tuple(rows)
    names: set[str] = set()
    for pattern in ("*",) if chosen == "all" else chosen:
        matched = {
            row.name for row in rows if row.role == pattern or fnmatchcase(row.name, pattern)
        }
        if not matched:
            raise UserError(
                f"{key}: {pattern!r} matches no parameter",
                allowed=[*(role.value for role in Role), "globs such as blocks.*.attention.*"],
            )
        names |= matched
    return tuple(row for row in rows if row.name in names)


def declared(part: object, attribute: str) -> Mapping[str, Any]:
    """Return the mapping that ``part`` declares in ``attribute``, or an empty one."""
    return getattr(part, attribute, {})
