"""Names that transformers gives to activations, and the feed-forward layers they make."""

from collections.abc import Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.recipe.sections.model import FeedForwardKind

Activations = Mapping[str, FeedForwardKind]

PLAIN: Activations = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "gelu": "gelu_erf",
    "relu": "relu",
}
"""Kinds of layers without a gate. The first name of a kind is the one that is written."""
GATED: Activations = {
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu_pytorch_tanh": "geglu",
    "gelu_new": "geglu",
    "gelu": "geglu_erf",
}
"""Kinds of layers with a gate."""


def feed_forward_of(
    configuration: Mapping[str, Any], key: str, kinds: Activations, default: str
) -> FeedForwardKind:
    """Return the kind of layer that ``key`` of a ``config.json`` names; ``default`` if it is unset.

    Raises UserError for a name that ``kinds`` lacks.
    """
    name = configuration.get(key) or default
    if name not in kinds:
        raise UserError(
            f"config.json: {key} is not supported with this value",
            found=repr(name),
            allowed=", ".join(map(repr, kinds)),
        )
    return kinds[name]


def activation_name(kind: FeedForwardKind, kinds: Activations) -> str:
    """Return the first name of a kind of layer; the first name of all for one that is not among
    ``kinds``."""
    return next((name for name, each in kinds.items() if each == kind), next(iter(kinds)))
