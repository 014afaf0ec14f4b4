"""A decoder-only transformer, which needs torch, transformers and the three files beside it.

Blocks normalise before each branch, after it, or both; branches may be parallel. Positions are
learned, rotary (whole or partial, halves or neighbouring pairs), ALiBi or none, and may be scaled
to longer contexts. Heads may share keys, and queries and keys may be normalised. The feed-forward
layer is GELU, ReLU or gated. The blocks' matrices may be those of Sparse-IFT. Layers may see a
sliding window of the context. Scores and logits may have a soft cap. Reversible models have two
residual streams.

Shapes: b sequences, t queries, s keys, h heads, d hidden size.
"""

import dataclasses
import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_feldspar import FeldsparConfig
from .layers_feldspar import activation, make_linear, make_norm, normalised, wide_dtype
from .positions_feldspar import Scaling, alibi_slopes, rotate, scaled_frequencies, scaled_slopes

Rotary = tuple[Tensor, Tensor]

# Newer releases of transformers renamed past_key_values to cache.
CACHE = (
    "cache"
    if "cache" in {field.name for field in dataclasses.fields(CausalLMOutputWithPast)}
    else "past_key_values"
)


def soft_capped(x: Tensor, cap: float | None) -> Tensor:
    """Return c tanh(x / c), or x without a cap c."""
    return x if cap is None else (x / cap).tanh() * cap


def on_grid(x: Tensor, bits: int | None) -> Tensor:
    """Round to multiples of 2^-bits, where there are bits."""
    return x if bits is None else (x * 2.0**bits).round() * 2.0**-bits


class Attention(nn.Module):
    """Multi-head or grouped-query attention with one fused projection."""

    def __init__(self, config: FeldsparConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.interleaved = config.rotary_interleaved
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.widths = [queries, keys, keys]
        self.groups = config.num_attention_heads // config.num_key_value_heads
        self.soft_cap = config.attention_soft_cap
        bias = config.has_bias("query_key_value")
        self.query_key_value = make_linear(config, config.hidden_size, sum(self.widths), bias)
        self.by_head = config.query_key_norm == "head"
        self.query_norm = self.key_norm = None
        if config.query_key_norm != "none":
            self.query_norm = make_norm(config, config.head_dim if self.by_head else queries)
            self.key_norm = make_norm(config, config.head_dim if self.by_head else keys)
        bias = config.has_bias("attention_output")
        self.output = make_linear(config, queries, config.hidden_size, bias)

    def forward(
        self, x: Tensor, rotary: Rotary | None, bias: Tensor, cache: Cache | None
    ) -> Tensor:
        """Map (b, t, d) to (b, t, d); ``bias`` (b or 1, h or 1, t, s) is added to the scores."""
        query, key, value = self.query_key_value(x).split(self.widths, dim=-1)
        query, key = self._heads(query, self.query_norm), self._heads(key, self.key_norm)
        value = self._heads(value, None)
        if rotary is not None:
            query = rotate(query, *rotary, self.interleaved)
            key = rotate(key, *rotary, self.interleaved)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
            bias = bias[..., -key.shape[2] :]  # a cache drops keys that left the window
        if self.groups > 1:
            key = key.repeat_interleave(self.groups, dim=1)
            value = value.repeat_interleave(self.groups, dim=1)
        query, key, value = query.to(bias.dtype), key.to(bias.dtype), value.to(bias.dtype)
        if self.soft_cap is None:
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        else:
            wide = wide_dtype(x)
            scores = (query @ key.transpose(2, 3)).to(wide) / math.sqrt(self.head_dim)
            scores = soft_capped(scores, self.soft_cap) + bias
            attended = scores.softmax(-1).to(value.dtype) @ value
        return self.output(attended.to(x.dtype).transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        """Normalise (b, t, width) where there is a norm; return (b, heads, t, head_dim)."""
        if not self.by_head:
            x = normalised(norm, x)
        x = x.unflatten(-1, (-1, self.head_dim))
        return (normalised(norm, x) if self.by_head else x).transpose(1, 2)


class FeedForward(nn.Module):
    """A nonlinearity between two maps, or gated, with one fused projection of gate and value."""

    def __init__(self, config: FeldsparConfig) -> None:
        super().__init__()
        self.kind = config.feed_forward
        self.gated = "glu" in self.kind
        bias = config.has_bias("feed_forward")
        inner = config.intermediate_size * (2 if self.gated else 1)
        self.input = make_linear(config, config.hidden_size, inner, bias)
        self.output = make_linear(config, config.intermediate_size, config.hidden_size, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, t, d) to (b, t, d)."""
        inner = self.input(x)
        if self.gated:
            gate, up = inner.chunk(2, dim=-1)
            return self.output(activation(gate, self.kind) * up)
        return self.output(activation(inner, self.kind))


class Block(nn.Module):
    """Attention and feed-forward, each with its norms, added to the residual stream."""

    def __init__(self, config: FeldsparConfig, layer: int) -> None:
        super().__init__()
        self.parallel = config.branches != "sequential"
        self.one_norm = config.branches == "parallel_one_norm"
        before, after = config.norm_place != "after", config.norm_place != "before"
        self.attention_norm = make_norm(config) if before else None
        self.attention = Attention(config, layer)
        self.attention_output_norm = make_norm(config) if after else None
        self.feed_forward_norm = make_norm(config) if before and not self.one_norm else None
        self.feed_forward = FeedForward(config)
        self.feed_forward_output_norm = make_norm(config) if after else None

    def forward(
        self, x: Tensor, rotary: Rotary | None, bias: Tensor, cache: Cache | None
    ) -> Tensor:
        """Map (b, t, d) to (b, t, d)."""
        attended, fed = self.addends(x, rotary, bias, cache)
        return x + attended + fed

    def addends(
        self, x: Tensor, rotary: Rotary | None, bias: Tensor, cache: Cache | None
    ) -> tuple[Tensor, Tensor]:
        """Return what attention and the feed-forward layer add to the stream that they read."""
        normal = normalised(self.attention_norm, x)
        attended = self._attended(normal, rotary, bias, cache)
        if not self.one_norm:
            normal = normalised(self.feed_forward_norm, x if self.parallel else x + attended)
        return attended, self._fed(normal)

    def two_streams(
        self,
        first: Tensor,
        second: Tensor,
        rotary: Rotary | None,
        bias: Tensor,
        cache: Cache | None,
        reversible: dict[str, Any],
    ) -> tuple[Tensor, Tensor]:
        """Return the streams of a reversible model after the block.

        revnet: both parts read the second and add to the first; the caller exchanges the streams.
        reformer: the feed-forward layer reads the first and adds to the second.
        """
        bits = reversible.get("fixed_point_bits")
        if reversible["type"] == "revnet":
            attended, fed = self.addends(second, rotary, bias, cache)
            return first + on_grid(attended + fed, bits), second
        normal = normalised(self.attention_norm, second)
        first = first + on_grid(self._attended(normal, rotary, bias, cache), bits)
        return first, second + on_grid(self._fed(normalised(self.feed_forward_norm, first)), bits)

    def _attended(
        self, normal: Tensor, rotary: Rotary | None, bias: Tensor, cache: Cache | None
    ) -> Tensor:
        branch = self.attention(normal, rotary, bias, cache)
        return normalised(self.attention_output_norm, branch)

    def _fed(self, normal: Tensor) -> Tensor:
        return normalised(self.feed_forward_output_norm, self.feed_forward(normal))


class FeldsparPreTrainedModel(PreTrainedModel):
    """The parts that transformers asks of each class of a family."""

    config_class = FeldsparConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = False
    _no_split_modules = ["Block"]
    _input_embed_layer = "token_embedding"
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


class FeldsparModel(FeldsparPreTrainedModel):
    """Positions, blocks and the final norm."""

    def __init__(self, config: FeldsparConfig) -> None:
        super().__init__(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position_type == "learned":
            n_positions = config.max_position_embeddings
            self.position_embedding = nn.Embedding(n_positions, config.hidden_size)
        self.embedding_norm = make_norm(config) if config.embedding_norm else None
        layers = range(config.num_hidden_layers)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in layers)
        self.final_norm = make_norm(config)
        self.post_init()

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        """Map token embeddings (b, t, d) to the hidden states (b, t, d) after the final norm."""
        x = inputs_embeds
        past = 0 if cache is None else cache.get_seq_length()
        if position_ids is None:
            position_ids = self._positions(x, attention_mask, past)
        if self.config.position_type == "learned":
            x = x + self.position_embedding(position_ids)
        x = normalised(self.embedding_norm, x)
        lengths = self._lengths(x, attention_mask, position_ids, past)
        bias = self._bias(x, attention_mask, past, lengths)
        rotary = self._rotary(x, position_ids, lengths)
        base = self.config.rotary_window_base
        window_rotary = rotary if base is None else self._rotary(x, position_ids, None, base)
        ways = {
            "full_attention": (rotary, bias),
            "sliding_attention": (window_rotary, self._window(bias)),
        }
        reversible = self.config.reversible
        if reversible is not None:
            x = on_grid(x, reversible.get("fixed_point_bits"))
        first = second = x
        for layer, (block, kind) in enumerate(
            zip(self.blocks, self.config.layer_types, strict=True)
        ):
            turned, hidden = ways[kind]
            if layer in self.config.layers_without_positions:
                turned = None
            if reversible is None:
                x = block(x, turned, hidden, cache)
                continue
            first, second = cast(Block, block).two_streams(
                first, second, turned, hidden, cache, reversible
            )
            if reversible["type"] == "revnet":
                first, second = second, first
        return self.final_norm(x if reversible is None else (first + second) / 2)

    @property
    def scaling(self) -> Scaling:
        """Return how positions are scaled."""
        return self.config.position_scaling or {"type": "none"}

    def _positions(self, x: Tensor, attention_mask: Tensor | None, past: int) -> Tensor:
        length = x.shape[1]
        if attention_mask is not None and attention_mask.dim() == 2:
            counted = attention_mask.long().cumsum(-1) - 1
            return counted.clamp_min(0)[:, -length:]
        return torch.arange(past, past + length, device=x.device)[None]

    def _lengths(
        self, x: Tensor, attention_mask: Tensor | None, position_ids: Tensor, past: int
    ) -> Tensor | None:
        """Return the tokens that a growing scaling counts by, (b or 1, t or 1), else None."""
        scaling, dtype = self.scaling, wide_dtype(x)
        grows = scaling["type"] in ("linear", "ntk") and scaling.get("train_length") is not None
        if not grows:
            return None
        if scaling.get("scope") == "query":
            return (position_ids + 1).to(dtype)
        if self.config.scaled_length is not None:
            return torch.tensor([[self.config.scaled_length]], dtype=dtype, device=x.device)
        total = torch.tensor([[past + x.shape[1]]], dtype=dtype, device=x.device)
        if attention_mask is not None and attention_mask.dim() == 2:
            total = attention_mask.sum(-1, keepdim=True).to(dtype)
        if past and total.max() > scaling["train_length"]:
            raise ValueError(
                "positions are scaled by the length of the whole sequence, which grew beyond "
                f"{scaling['train_length']} tokens while the cache holds what shorter ones gave: "
                "set config.scaled_length to prompt and new tokens, or use_cache=False"
            )
        return total

    def _rotary(
        self,
        x: Tensor,
        position_ids: Tensor,
        lengths: Tensor | None,
        window_base: float | None = None,
    ) -> Rotary | None:
        """Return cosine and sine (b, 1, t, pairs), unscaled where ``window_base`` is given."""
        if self.config.position_type != "rotary":
            return None
        dtype = wide_dtype(x)
        rotated = round(self.config.rotary_fraction * self.config.head_dim)
        exponents = torch.arange(0, rotated, 2, device=x.device, dtype=dtype) / rotated
        if window_base is None:
            turned, multiplier = scaled_frequencies(
                exponents, self.config.rotary_base, self.scaling, lengths
            )
        else:
            turned, multiplier = window_base**-exponents, 1.0
        if turned.dim() > 1:
            turned = turned[:, None]
        angles = position_ids.to(dtype)[:, None, :, None] * turned
        return angles.cos() * multiplier, angles.sin() * multiplier

    def _bias(
        self, x: Tensor, attention_mask: Tensor | None, past: int, lengths: Tensor | None
    ) -> Tensor:
        """Return the bias of the scores, (b or 1, h or 1, t, s); ALiBi in float32 at least."""
        n_keys = past + x.shape[1]
        rows = torch.arange(past, n_keys, device=x.device)
        distance = rows[:, None] - torch.arange(n_keys, device=x.device)
        visible = (distance >= 0)[None, None]
        if attention_mask is not None:
            given = attention_mask.bool()
            if given.dim() == 2:
                given = given[:, None, None, :n_keys]
            # A padding query sees itself, so that its row is not empty.
            visible = visible & (given | (distance == 0))
        if self.config.position_type == "alibi":
            dtype = wide_dtype(x)
            values = alibi_slopes(self.config.num_attention_heads, self.config.alibi_max_exponent)
            slopes = torch.tensor(values, device=x.device, dtype=dtype)
            slopes = scaled_slopes(slopes, self.scaling, lengths)
            if self.config.alibi_rounded:
                places = torch.arange(n_keys, device=x.device)
                if attention_mask is not None and attention_mask.dim() == 2:
                    places = (attention_mask.cumsum(-1) - 1)[:, None, None]
                low = torch.bfloat16
                bias = (slopes.to(low) * places.to(low)).to(dtype)
            else:
                bias = -slopes * distance.to(dtype)
            bias = bias * self.config.alibi_slope_multiplier
        else:
            bias = torch.zeros((), device=x.device, dtype=x.dtype)
        return torch.where(visible, bias, float("-inf"))

    def _window(self, bias: Tensor) -> Tensor:
        """Hide the keys that lie outside the window of each query."""
        if self.config.sliding_window is None:
            return bias
        n_queries, n_keys = bias.shape[-2:]
        rows = torch.arange(n_keys - n_queries, n_keys, device=bias.device)
        distance = rows[:, None] - torch.arange(n_keys, device=bias.device)
        return bias.masked_fill(distance >= self.config.sliding_window, float("-inf"))


class FeldsparForCausalLM(FeldsparPreTrainedModel, GenerationMixin):
    """The decoder with its output matrix."""

    _tied_weights_keys = {"lm_head.weight": "model.token_embedding.weight"}

    def __init__(self, config: FeldsparConfig) -> None:
        super().__init__(config)
        self.model = FeldsparModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits (b, t, vocabulary), and the mean loss of ``labels`` (b, t) where given.

        ``logits_to_keep`` is the number of last positions (0: all), or their indices.
        """
        cache = past_key_values if cache is None else cache
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and cache is None and not self.training:
            cache = DynamicCache(config=self.config)
        if inputs_embeds is None:
            inputs_embeds = self.model.token_embedding(input_ids)
        hidden = self.model(inputs_embeds, attention_mask, position_ids, cache)
        kept = (
            slice(-logits_to_keep or None, None)
            if isinstance(logits_to_keep, int)
            else logits_to_keep
        )
        logits = soft_capped(self.lm_head(hidden[:, kept]), self.config.logit_soft_cap)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        kept_cache: dict[str, Any] = {CACHE: cache if use_cache else None}
        return CausalLMOutputWithPast(loss=loss, logits=logits, **kept_cache)
