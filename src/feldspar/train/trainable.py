"""Which parameters a phase trains."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from feldspar.core.errors import UserError
from feldspar.core.rows import ParameterRow, Role


def set_trainable(
    model: nn.Module,
    rows: Iterable[ParameterRow],
    trainable: Literal["all"] | tuple[str, ...],
    key: str,
) -> bool:
    """Set ``requires_grad`` of every parameter; returns whether any of them changed.

    ``trainable`` holds role names and globs of parameter names. Raises UserError for one that
    matches nothing.
    """
    rows = list(rows)
    patterns = ("*",) if trainable == "all" else trainable
    chosen: set[str] = set()
    for pattern in patterns:
        matched = {
            row.name for row in rows if row.role == pattern or fnmatchcase(row.name, pattern)
        }
        if not matched:
            raise UserError(
                f"{key}: {pattern!r} matches no parameter",
                allowed=[*(role.value for role in Role), "globs such as blocks.*.attention.*"],
            )
        chosen |= matched
    changed = False
    for name, parameter in model.named_parameters():
        if parameter.requires_grad != (name in chosen):
            parameter.requires_grad_(name in chosen)
            changed = True
    return changed
