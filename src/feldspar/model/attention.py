"""The attention branch of a block: fused projections, rotation, one of the attention paths."""

from typing import ClassVar

from torch import Tensor, nn

from feldspar.core.rows import ParameterRole, Role
from feldspar.model.attention_paths import attend
from feldspar.model.context import SequenceContext
from feldspar.model.layers import Linear
from feldspar.model.positions import rotate
from feldspar.model.visible_keys import VisibleKeys
from feldspar.recipe.sections.model import ModelSettings, RotaryPositions


class Attention(nn.Module):
    """Multi-head or grouped-query attention.

    The rows of ``query_key_value`` are all query heads, then key heads, then value heads.
    ``score_multiplier`` multiplies q.k: 1/sqrt(head_dim) unless a parametrization changes it.
    """

    forward_multipliers: ClassVar[dict[str, str]] = {"score_multiplier": "attention"}

    def __init__(self, settings: ModelSettings, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.window = settings.window_of(layer)
        self.head_dim = settings.head_width
        self.query_width = settings.n_heads * self.head_dim
        self.key_width = settings.kv_heads * self.head_dim
        positions = settings.positions
        self.interleaved = isinstance(positions, RotaryPositions) and positions.interleaved
        self.dropout = settings.dropout
        self.score_multiplier = self.head_dim**-0.5
        d_model, bias = settings.d_model, settings.bias
        fused_width = self.query_width + 2 * self.key_width
        self.query_key_value = Linear(d_model, fused_width, bias, ParameterRole(Role.HIDDEN))
        self.output = Linear(
            self.query_width, d_model, bias, ParameterRole(Role.HIDDEN, writes_residual=True)
        )

    def heads(self, x_btd: Tensor, context: SequenceContext) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries (b, heads, t, head_dim), keys and values (b, kv heads, ...)."""
        widths = [self.query_width, self.key_width, self.key_width]
        query, key, value = (
            part.unflatten(-1, (-1, self.head_dim))
            for part in self.query_key_value(x_btd).split(widths, dim=-1)
        )
        if context.rotary is not None:
            query = rotate(query, *context.rotary, self.interleaved)
            key = rotate(key, *context.rotary, self.interleaved)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def forward(self, x_btd: Tensor, context: SequenceContext) -> Tensor:
        """Map (b, t, d_model) to (b, t, d_model)."""
        query, key, value = self.heads(x_btd, context)
        if context.cache is not None:
            key, value = context.cache.extend(self.layer, key, value)
        attended = attend(
            query,
            key,
            value,
            self.score_multiplier,
            context.slopes,
            VisibleKeys(context.document_ids, self.window),
            self.dropout if self.training else 0.0,
        )
        return self.output(attended.transpose(1, 2).flatten(2))
