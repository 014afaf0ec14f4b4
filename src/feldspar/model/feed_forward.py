"""The feed-forward branch: GELU, ReLU, or a gated form of them (2002.05202)."""

from torch import Tensor, nn

from feldspar.core.rows import FanIn, ParameterRole, Role
from feldspar.model.nonlinearities import ACTIVATIONS
from feldspar.model.sparse_members import make_linear
from feldspar.recipe.sections.model import ModelSettings


class FeedForward(nn.Module):
    """``output(f(input(x)))`` or ``output(f(gate) * up)``; then ``input`` holds gate and up."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.gated = settings.gated
        self.activation = ACTIVATIONS[settings.feed_forward]
        d_model, d_ff, bias = settings.d_model, settings.d_ff, settings.biases.feed_forward
        inner = 2 * d_ff if self.gated else d_ff
        self.input = make_linear(
            settings, d_model, inner, bias, ParameterRole(Role.HIDDEN), FanIn.D_MODEL_AND_D_FF
        )
        self.output = make_linear(
            *(settings, d_ff, d_model, bias),
            ParameterRole(Role.HIDDEN, FanIn.D_FF, writes_residual=True),
            FanIn.D_MODEL_AND_D_FF,
        )

    def forward(self, x_btd: Tensor) -> Tensor:
        """Map (b, t, d_model) to (b, t, d_model)."""
        inner = self.input(x_btd)
        if self.gated:
            gate, up = inner.chunk(2, dim=-1)
            return self.output(self.activation(gate) * up)
        return self.output(self.activation(inner))
