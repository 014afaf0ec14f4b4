"""The feed-forward branch: GELU (GPT-2's tanh form) or SwiGLU (2002.05202)."""

from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.rows import FanIn, ParameterRole, Role
from feldspar.model.activation import gelu
from feldspar.model.layers import Linear
from feldspar.recipe.sections.model import ModelSettings


class FeedForward(nn.Module):
    """``output(gelu(input(x)))`` or ``output(silu(gate) * up)``, gate and up fused in ``input``."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.gated = settings.feed_forward == "swiglu"
        d_model, d_ff, bias = settings.d_model, settings.d_ff, settings.bias
        inner = 2 * d_ff if self.gated else d_ff
        self.input = Linear(d_model, inner, bias, ParameterRole(Role.HIDDEN))
        self.output = Linear(
            d_ff, d_model, bias, ParameterRole(Role.HIDDEN, FanIn.D_FF, writes_residual=True)
        )

    def forward(self, x_btd: Tensor) -> Tensor:
        """Map (b, t, d_model) to (b, t, d_model)."""
        inner = self.input(x_btd)
        if self.gated:
            gate, up = inner.chunk(2, dim=-1)
            return self.output(F.silu(gate) * up)
        return self.output(gelu(inner))
