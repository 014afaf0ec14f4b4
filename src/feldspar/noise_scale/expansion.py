"""Norms of other libraries: their own forward pass on a copy of the gain for each example.

A gain, (d,) or any shape, that only multiplies or is added to (B, ..., d) may as well be
(B, 1, ..., d): the gradient of that copy holds each example's own. The pass stays the library's,
bit for bit, whatever it does (1 + gain, float32 inside).
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from feldspar.noise_scale.norms import NormRule
from feldspar.noise_scale.products import widened

PLACES = ("weight", "bias")
"""Which parameters may be expanded, by their place in a norm's outlet."""


class Inside(nn.Module):
    """``inner`` run by its own forward function, for parameters to be replaced in it."""

    def __init__(self, inner: nn.Module, plain: Any) -> None:
        super().__init__()
        self.inner = inner
        self._plain = plain

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What ``inner`` returns."""
        return self._plain(self.inner, *args, **kwargs)


class ExpandedNormRule(NormRule):
    """A norm whose parameters act by broadcasting on (B, ..., d)."""

    _inside: Inside | None = None

    def prepare(self, module: nn.Module) -> None:
        """Make the extra inputs, and what parameters are replaced in."""
        super().prepare(module)
        if self._inside is None:
            self._inside = Inside(module, self.plain)

    def _apply(
        self, module: nn.Module, x: Tensor, outlet: Tensor | None, rule: NormRule | None
    ) -> Tensor:
        copies = {}
        for local_name in self.uses:
            parameter = cast(Tensor, getattr(module, local_name))
            shape = (len(x), *[1] * (x.dim() - 1 - parameter.dim()), *parameter.shape)
            # In the outlet: the place of the squares, and of the examples, counted once.
            places = (PLACES.index(local_name), 2 if not copies else None)
            told = None if rule is None else (rule, local_name)
            copies[f"inner.{local_name}"] = _Expand.apply(parameter, shape, places, outlet, told)
        return functional_call(cast(Inside, self._inside), copies, (x,))


class _Expand(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        parameter: Tensor,
        shape: tuple[int, ...],
        places: tuple[int, int | None],
        outlet: Tensor | None,
        told: tuple[NormRule, str] | None,
    ) -> Tensor:
        ctx.shape, ctx.places, ctx.told = parameter.shape, places, told
        return parameter.expand(shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        vectors = widened(grads[0]).reshape(len(grads[0]), *ctx.shape)
        outlet = None
        if ctx.told is not None:
            rule, local_name = ctx.told
            rule.tell_vectors(local_name, vectors, ctx.shape)
        else:
            square, none = vectors.square().sum(), vectors.new_zeros(())
            examples = vectors.new_full((), len(vectors))
            told = {ctx.places[0]: square, ctx.places[1]: examples}
            outlet = torch.stack([told.get(place, none) for place in range(3)])
        return vectors.sum(0).to(grads[0].dtype), None, None, outlet, None
