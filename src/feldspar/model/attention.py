"""The attention branch of a block: fused projections, rotation, one of the attention paths."""

from typing import ClassVar

from torch import Tensor, nn

from feldspar.core.rows import ParameterRole, Role
from feldspar.model.attention_paths import attend
from feldspar.model.context import SequenceContext
from feldspar.model.layers import make_norm
from feldspar.model.positions import rotate
from feldspar.model.sparse_members import make_linear
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
        rotary = positions if isinstance(positions, RotaryPositions) else None
        self.interleaved = rotary is not None and rotary.interleaved
        self.rotates = rotary is not None and layer not in rotary.layers_without
        self.has_window_base = (
            rotary is not None and rotary.window_base is not None and self.window is not None
        )
        self.dropout = settings.dropout
        self.score_multiplier = self.head_dim**-0.5
        self.soft_cap = settings.attention_soft_cap
        d_model, biases = settings.d_model, settings.biases
        fused_width = self.query_width + 2 * self.key_width
        self.query_key_value = make_linear(
            settings, d_model, fused_width, biases.query_key_value, ParameterRole(Role.HIDDEN)
        )
        self.normalises_heads = settings.query_key_norm == "head"
        self.query_norm = self.key_norm = None
        if settings.query_key_norm != "none":
            alone = self.normalises_heads
            self.query_norm = make_norm(self.head_dim if alone else self.query_width, settings)
            self.key_norm = make_norm(self.head_dim if alone else self.key_width, settings)
        self.output = make_linear(
            settings,
            self.query_width,
            d_model,
            biases.attention_output,
            ParameterRole(Role.HIDDEN, writes_residual=True),
        )

    def heads(self, x_btd: Tensor, context: SequenceContext) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries (b, heads, t, head_dim), keys and values (b, kv heads, ...)."""
        widths = [self.query_width, self.key_width, self.key_width]
        query, key, value = self.query_key_value(x_btd).split(widths, dim=-1)
        query = self._by_head(query, self.query_norm)
        key = self._by_head(key, self.key_norm)
        value = value.unflatten(-1, (-1, self.head_dim))
        tables = context.window_rotary if self.has_window_base else context.rotary
        if tables is not None and self.rotates:
            query = rotate(query, *tables, self.interleaved)
            key = rotate(key, *tables, self.interleaved)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def _by_head(self, x_btd: Tensor, norm: nn.Module | None) -> Tensor:
        """Normalise queries or keys where the model does so; return (b, t, heads, head_dim)."""
        if norm is not None and not self.normalises_heads:
            x_btd = norm(x_btd)
        x_bthd = x_btd.unflatten(-1, (-1, self.head_dim))
        return norm(x_bthd) if norm is not None and self.normalises_heads else x_bthd

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
            self.soft_cap,
            context.key_biases,
        )
        return self.output(attended.transpose(1, 2).flatten(2))
