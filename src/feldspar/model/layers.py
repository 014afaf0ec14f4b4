"""Linear maps, embeddings and norms of the decoder, each declaring the roles of its parameters.

They are torch's own modules without the default initialisation: `parametrization.apply` draws every
initial value, so only memory is allocated here.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.rows import ParameterRole, ParameterRoles, Role
from feldspar.recipe.sections.model import ModelSettings


class Linear(nn.Linear):
    """``x @ weight.T + bias`` with a role for the weight (out, in), which is left uninitialised.

    ``product``, if it is set, computes the same from x, weight and bias: a sparse product where a
    mask keeps few entries.
    """

    computes_as = nn.Linear
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None

    def __init__(self, n_in: int, n_out: int, bias: bool, role: ParameterRole) -> None:
        super().__init__(n_in, n_out, bias=bias)
        self.parameter_roles: ParameterRoles = {
            "weight": role,
            "bias": ParameterRole(Role.BIAS),
        }

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore  # torch names it input
        """Map (..., in) to (..., out)."""
        if self.product is None:
            return F.linear(x, self.weight, self.bias)
        return self.product(x, self.weight, self.bias)

    def reset_parameters(self) -> None:
        """Leave the values to the parametrization."""


class Embedding(nn.Embedding):
    """A table of vectors, (rows, d_model), left uninitialised."""

    def __init__(self, n_rows: int, d_model: int, role: Role) -> None:
        super().__init__(n_rows, d_model)
        self.parameter_roles: ParameterRoles = {"weight": ParameterRole(role)}

    def reset_parameters(self) -> None:
        """Leave the values to the parametrization."""


class PositionEmbedding(nn.Module):
    """A table with a vector for each position, which is added there; left uninitialised."""

    parameter_roles: ParameterRoles = {"weight": ParameterRole(Role.POSITION)}

    def __init__(self, n_positions: int, d_model: int) -> None:
        super().__init__()
        self.n_positions = n_positions
        self.weight = nn.Parameter(torch.empty(n_positions, d_model))

    def forward(self, x_btd: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return ``x_btd`` plus the vectors of ``positions``, (t,) or (b, t); default:
        the first t.
        """
        if positions is None:
            return x_btd + self.weight[: x_btd.shape[1]]
        return x_btd + F.embedding(positions, self.weight)


NORM_ROLES: ParameterRoles = {
    "weight": ParameterRole(Role.NORM, initial_mean=1.0),
    "bias": ParameterRole(Role.NORM),
}


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over the last dimension."""

    parameter_roles: ParameterRoles = NORM_ROLES
    computes_as = nn.LayerNorm

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore  # torch names it input
        """Normalise. On a processor, gradients do not depend on the number of threads."""
        same = x.dtype == self.weight.dtype
        if x.device.type != "cpu" or not same or torch.compiler.is_compiling():
            return super().forward(x)
        shape = self.normalized_shape
        return cast(
            tuple[Tensor, Tensor, Tensor],
            _LayerNormOnCpu.apply(x, self.weight, self.bias, shape, self.eps),
        )[0]


class _LayerNormOnCpu(torch.autograd.Function):
    """Torch's own kernels, with one thread for the sums over rows.

    With several threads, torch adds up the rows of each thread first, so that the gradients of gain
    and bias would depend on the number of threads. The rest of the kernel treats rows alone.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...], epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_layer_norm(x, shape, weight, bias, epsilon)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, ctx.shape, _ = inputs
        _, mean, inverse = output
        ctx.mark_non_differentiable(mean, inverse)
        ctx.save_for_backward(x, weight, bias, mean, inverse)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, inverse = ctx.saved_tensors
        wants_x, *wants = ctx.needs_input_grad[:3]
        threads = torch.get_num_threads()

        def gradients(mask: list[bool]) -> tuple[Tensor | None, ...]:
            return torch.ops.aten.native_layer_norm_backward(
                grads[0], x, ctx.shape, mean, inverse, weight, bias, mask
            )

        if threads == 1 or not any(wants):
            return (*gradients([wants_x, *wants]), None, None)
        grad_x = gradients([True, False, False])[0] if wants_x else None
        torch.set_num_threads(1)
        try:
            _, grad_weight, grad_bias = gradients([False, *wants])
        finally:
            torch.set_num_threads(threads)
        return grad_x, grad_weight, grad_bias, None, None


class RMSNorm(nn.RMSNorm):
    """Division by the root mean square over the last dimension, then a gain: ``weight`` plus
    ``gain_offset``.
    """

    computes_as = nn.RMSNorm

    def __init__(self, width: int, eps: float, gain_offset: float = 0.0) -> None:
        super().__init__(width, eps=eps)
        self.gain_offset = gain_offset
        initial = 1.0 - gain_offset
        self.parameter_roles: ParameterRoles = {
            "weight": ParameterRole(Role.NORM, initial_mean=initial)
        }

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, in float32 at least, whatever the precision of the input."""
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        gain = self.weight + self.gain_offset if self.gain_offset else self.weight
        if x.device.type not in ("cpu", "meta") or torch.compiler.is_compiling():
            return F.rms_norm(wide, self.normalized_shape, gain, self.eps).to(x.dtype)
        return cast(Tensor, _RMSNormOnCpu.apply(wide, gain, self.eps)).to(x.dtype)


class _RMSNormOnCpu(torch.autograd.Function):
    """An RMS norm with half the passes over the input, for devices without a kernel of torch's.

    With n = x / rms(x): y = w n, and dx = (w dy - n mean(w dy n)) / rms(x).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norms.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        normal = x * inverse
        product = grads[0] * normal
        mean = (product @ weight).div_(x.shape[-1]).unsqueeze(-1)
        grad_x = (grads[0] * weight).addcmul_(normal, mean, value=-1).mul_(inverse)
        return grad_x, product.flatten(0, -2).sum(0), None


def make_norm(width: int, settings: ModelSettings) -> nn.Module:
    """Return a norm over ``width`` dimensions, of the kind that ``settings`` name."""
    norm = settings.norm
    if norm.type == "rms":
        return RMSNorm(width, norm.epsilon, float(norm.unit_offset))
    return LayerNorm(width, eps=norm.epsilon, bias=settings.biases.norm)


SOFT_PROMPT = "soft_prompt.weight"
"""The name of the table of learned vectors in a decoder."""


class SoftPrompt(nn.Module):
    """A table of learned vectors among the tokens of a sequence; left uninitialised.

    The scheme is that of BioGPT and MediSwift (2403.00952). Vector i has the id ``first_id`` + i,
    which lies beyond the vocabulary, and a sequence holds such ids among its tokens. Positions,
    attention and caches treat a vector as any token. Only its embedding is its own. The head has no
    row for it and never predicts it.
    """

    parameter_roles: ParameterRoles = {"weight": ParameterRole(Role.PROMPT)}

    def __init__(self, length: int, d_model: int, first_id: int) -> None:
        super().__init__()
        self.first_id = first_id
        self.weight = nn.Parameter(torch.empty(length, d_model))

    def forward(self, tokens: Tensor, table: nn.Module) -> Tensor:
        """Return embeddings (b, t, d): from ``table`` for tokens, from this table for its
        own ids.
        """
        own = tokens >= self.first_id
        vectors = F.embedding((tokens - self.first_id).clamp_(min=0), self.weight)
        return torch.where(own.unsqueeze(-1), vectors, table(tokens.masked_fill(own, 0)))
