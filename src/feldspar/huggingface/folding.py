"""Fold the forward multipliers into the weights, which gives a plain model.

A plain model divides attention scores by sqrt(head_dim) and has no other multiplier, so that common
classes compute the same logits. Embedding tables take the embedding multiplier, the head the
output multiplier (as a tensor of its own), the key rows the attention multiplier, the matrices that
write the residual stream (and their biases) the residual multiplier. ALiBi and rotary positions
stay as they are: ALiBi is added after the scaling, and a rotation commutes with it.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.model.layers import SOFT_PROMPT
from feldspar.parametrization.tables import ForwardMultipliers
from feldspar.recipe.sections.model import ModelSettings

EMBEDDING = "token_embedding.weight"
TABLES = (EMBEDDING, "position_embedding.weight", SOFT_PROMPT)
HEAD = "output.weight"
KEY_PARTS = ("attention.query_key_value.weight", "attention.query_key_value.bias")
RESIDUAL_PARTS = tuple(
    f"{branch}.output.{part}"
    for branch in ("attention", "feed_forward")
    for part in ("weight", "bias")
)


@dataclass(frozen=True)
class Folded:
    """A plain model, which ``fold`` refuses: parameters by name, settings, plain multipliers.

    The settings differ from the folded model's where the head came untied.
    """

    state: dict[str, Tensor]
    settings: ModelSettings
    forward: ForwardMultipliers


def plain_multipliers(settings: ModelSettings) -> ForwardMultipliers:
    """Return the multipliers of a plain model."""
    return ForwardMultipliers(1.0, 1.0, 1 / math.sqrt(settings.head_width), 1.0)


def is_plain(settings: ModelSettings, forward: ForwardMultipliers) -> bool:
    """Tell whether there is nothing to fold."""
    plain = plain_multipliers(settings)
    return all(
        math.isclose(getattr(forward, part.name), getattr(plain, part.name), rel_tol=1e-12)
        for part in fields(plain)
    )


@torch.no_grad()
def fold(
    state: Mapping[str, Tensor], settings: ModelSettings, forward: ForwardMultipliers
) -> Folded:
    """Return the plain model that computes the same logits; tensors that change are copies.

    A tied head comes untied unless both of its multipliers are 1. Raises UserError when the
    multipliers are plain already, as they are when a model is folded twice.
    """
    if is_plain(settings, forward):
        raise UserError(
            "the model has no multipliers to fold: it is plain, or folded already",
            do="export it as it is",
        )
    _check_multipliers(forward)
    folded = dict(state)
    untie = settings.tied_embeddings and (forward.embedding, forward.output) != (1.0, 1.0)
    if untie:
        folded[HEAD] = state[EMBEDDING].clone()
        settings = settings.model_copy(update={"tied_embeddings": False})
    for name, tensor in folded.items():
        folded[name] = _changed(name, tensor, settings, forward, operator.mul)
    return Folded(folded, settings, plain_multipliers(settings))


@torch.no_grad()
def unfold(
    state: Mapping[str, Tensor], settings: ModelSettings, forward: ForwardMultipliers
) -> dict[str, Tensor]:
    """Return the weights that, under ``forward``, compute the logits of the plain ``state``.

    ``settings`` are the target's. A tied target is possible only when the plain model's head and
    embedding stand in the ratio of the multipliers; otherwise UserError is raised.
    """
    _check_multipliers(forward)
    source = dict(state)
    if settings.tied_embeddings:
        head = source.pop(HEAD, source[EMBEDDING])
        expected = source[EMBEDDING] * (forward.output / forward.embedding)
        if not torch.allclose(head, expected, rtol=1e-5, atol=1e-8):
            raise UserError(
                "model.tied_embeddings: the head is not proportional to the embedding, so the two "
                "cannot be tied",
                do="set model.tied_embeddings: false",
            )
    elif HEAD not in source:
        source[HEAD] = source[EMBEDDING].clone()
    return {
        name: _changed(name, tensor, settings, forward, operator.truediv)
        for name, tensor in source.items()
    }


def _changed(
    name: str,
    tensor: Tensor,
    settings: ModelSettings,
    forward: ForwardMultipliers,
    operation: Callable[[Tensor, float], Tensor],
) -> Tensor:
    """Multiply or divide a tensor by its factor, in float32 at least."""
    factor, rows = _factor(name, settings, forward)
    if factor == 1.0:
        return tensor
    changed = tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
    changed[rows] = operation(changed[rows], factor)
    return changed


def _factor(name: str, settings: ModelSettings, forward: ForwardMultipliers) -> tuple[float, slice]:
    """Return the factor that folding multiplies a tensor by, and the rows that it concerns."""
    everything = slice(None)
    if name in TABLES:
        return forward.embedding, everything
    if name == HEAD:
        return forward.output, everything
    if name.endswith(RESIDUAL_PARTS):
        return forward.residual, everything
    if name.endswith(KEY_PARTS):
        begin = settings.n_heads * settings.head_width
        keys = slice(begin, begin + settings.kv_heads * settings.head_width)
        return forward.attention / plain_multipliers(settings).attention, keys
    return 1.0, everything


def _check_multipliers(forward: ForwardMultipliers) -> None:
    for part in fields(forward):
        value = getattr(forward, part.name)
        if not math.isfinite(value) or value == 0:
            raise UserError(f"the {part.name} multiplier must be finite and not 0", found=value)
