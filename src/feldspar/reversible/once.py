"""Find the trainable parameters of a module, and refuse second derivatives; both custom functions
use it."""

import torch
from torch import nn

from feldspar.core.errors import UserError


def trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters whose gradients a backward pass must return, each once."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def refuse_double_backward() -> None:
    """Raise UserError in a backward pass that is itself recorded (``create_graph=True``)."""
    if torch.is_grad_enabled():
        raise UserError(
            "recomputed activations have no second derivatives (create_graph=True)",
            do="use memory='store'",
        )
