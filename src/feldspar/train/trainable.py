"""Which parameters a phase trains."""

from collections.abc import Iterable
from typing import Literal

from torch import nn

from feldspar.core.rows import ParameterRow, chosen_rows


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
    chosen = {row.name for row in chosen_rows(rows, trainable, key)}
    changed = False
    for name, parameter in model.named_parameters():
        if parameter.requires_grad != (name in chosen):
            parameter.requires_grad_(name in chosen)
            changed = True
    return changed
