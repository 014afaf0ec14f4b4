"""The parameters that a phase trains."""

from collections.abc import Iterable

from torch import nn

from feldspar.core.rows import ParameterRow


def set_trainable(model: nn.Module, trained: Iterable[ParameterRow]) -> bool:
    """Let only the ``trained`` parameters require gradients; return whether any changed."""
    chosen = {row.name for row in trained}
    changed = False
    for name, parameter in model.named_parameters():
        if parameter.requires_grad != (name in chosen):
            parameter.requires_grad_(name in chosen)
            changed = True
    return changed
