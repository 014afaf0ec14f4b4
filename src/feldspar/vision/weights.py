"""Tensors by name, copied into a network that they fit."""

from collections.abc import Mapping

from torch import Tensor

from feldspar.core.errors import UserError


def copy_weights(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Copy into each tensor of ``own`` the one of its name; ``source`` names where they are from.

    Raises UserError for a tensor that is absent or of another shape.
    """
    for name, into in own.items():
        found = weights.get(name)
        if found is None or found.shape != into.shape:
            raise UserError(
                f"{source} does not fit the network at {name}",
                found="absent" if found is None else tuple(found.shape),
                allowed=str(tuple(into.shape)),
            )
        into.copy_(found)
