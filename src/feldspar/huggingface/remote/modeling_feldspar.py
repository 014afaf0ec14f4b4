"""A decoder-only transformer in one file, which needs torch and transformers only.

Blocks normalise before each branch. Positions are learned, rotary (whole or partial, halves or
neighbouring pairs), ALiBi or none, and may be scaled to longer contexts. Heads may share keys. The
feed-forward layer is GELU or SwiGLU. Layers may see a sliding window of the context.

Shapes: b sequences, t queries, s keys, h heads, d hidden size.
"""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_feldspar import FeldsparConfig

Scaling = dict[str, Any]
Rotary = tuple[Tensor, Tensor]

# Newer releases of transformers renamed past_key_values to cache.
CACHE = (
    "cache"
    if "cache" in {field.name for field in dataclasses.fields(CausalLMOutputWithPast)}
    else "past_key_values"
)


def alibi_slopes(n_heads: int, max_exponent: float) -> list[float]:
    """Return the slope of each head (ALiBi, 2108.12409, for any number of heads)."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2.0 ** (-max_exponent * head / power) for head in range(1, power + 1)]
    extra = range(1, n_heads - power + 1)
    return slopes + [2.0 ** (-max_exponent * (2 * rank - 1) / (2 * power)) for rank in extra]


def stretch(lengths: Tensor, scaling: Scaling) -> Tensor:
    """Divide lengths (b or 1, t or 1) by train_length; lengths up to train_length give 1."""
    return (lengths / scaling["train_length"]).clamp_min(1.0)


def scaled_slopes(slopes: Tensor, scaling: Scaling, lengths: Tensor | None) -> Tensor:
    """Divide slopes (h,) as the scaling says: (b or 1, h, t or 1, 1)."""
    if scaling["type"] == "ntk":
        ranks = slopes.argsort(descending=True).argsort().to(slopes.dtype)
        slopes = slopes / scaling["factor"] ** (ranks / (len(slopes) - 1))
    slopes = slopes[None, :, None, None]
    if scaling["type"] != "linear":
        return slopes
    if lengths is None:
        return slopes / scaling["factor"]
    return slopes / stretch(lengths, scaling)[:, None, :, None]


def scaled_frequencies(
    exponents: Tensor, base: float, scaling: Scaling, lengths: Tensor | None
) -> tuple[Tensor, float]:
    """Return radians per position, (p,) or (b, t or 1, p), and a factor for cosine and sine."""
    plain, kind, n_pairs = base**-exponents, scaling["type"], len(exponents)
    factor: Any = scaling.get("factor")
    length: Any = scaling.get("train_length")
    if kind == "linear":
        return plain / (factor if lengths is None else stretch(lengths, scaling)[..., None]), 1.0
    if kind == "ntk":
        if lengths is not None:
            factor = factor * stretch(lengths, scaling)[..., None] - (factor - 1)
        return (base * factor ** (n_pairs / (n_pairs - 1))) ** -exponents, 1.0
    if kind == "yarn":

        def pair_with(turns: int) -> float:
            return n_pairs * math.log(length / (turns * 2 * math.pi)) / math.log(base)

        low = max(math.floor(pair_with(32)), 0)
        high = min(math.ceil(pair_with(1)), 2 * n_pairs - 1)
        pairs = torch.arange(n_pairs, dtype=plain.dtype, device=plain.device)
        divided = ((pairs - low) / max(high - low, 1e-3)).clamp(0, 1)
        return plain * (1 - divided + divided / factor), 0.1 * math.log(factor) + 1
    if kind == "llama3":
        kept = ((length * plain / (2 * math.pi) - 1) / 3).clamp(0, 1)
        return plain * (kept + (1 - kept) / factor), 1.0
    return plain, 1.0


def rotate(x: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
    """Rotate the first dimensions of x (b, h, t, head_dim) by the tables (b, 1, t, pairs)."""
    n_pairs = cosine.shape[-1]
    if interleaved:
        first, second = x[..., 0 : 2 * n_pairs : 2], x[..., 1 : 2 * n_pairs : 2]
    else:
        first, second = x[..., :n_pairs], x[..., n_pairs : 2 * n_pairs]
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    rotated = torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)
    return torch.cat([rotated.to(x.dtype), x[..., 2 * n_pairs :]], dim=-1)


def wide_dtype(x: Tensor) -> torch.dtype:
    """Return float32, or float64 where x has it: tables and norms are computed in it."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class RMSNorm(nn.RMSNorm):
    """Division by the root mean square in float32 at least, then a gain."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        wide = wide_dtype(x)
        gain = self.weight.to(wide)
        return F.rms_norm(x.to(wide), self.normalized_shape, gain, self.eps).to(x.dtype)


def make_norm(config: FeldsparConfig) -> nn.Module:
    """Return the norm that the configuration names."""
    if config.norm_type == "rms":
        return RMSNorm(config.hidden_size, config.norm_epsilon)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon, bias=config.use_bias)


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
        self.query_key_value = nn.Linear(config.hidden_size, sum(self.widths), bias=config.use_bias)
        self.output = nn.Linear(queries, config.hidden_size, bias=config.use_bias)

    def forward(
        self, x: Tensor, rotary: Rotary | None, bias: Tensor, cache: Cache | None
    ) -> Tensor:
        """Map (b, t, d) to (b, t, d); ``bias`` (b or 1, h or 1, t, s) is added to the scores."""
        query, key, value = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for part in self.query_key_value(x).split(self.widths, dim=-1)
        )
        if rotary is not None:
            query = rotate(query, *rotary, self.interleaved)
            key = rotate(key, *rotary, self.interleaved)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
            bias = bias[..., -key.shape[2] :]  # a cache drops keys that left the window
        if self.groups > 1:
            key = key.repeat_interleave(self.groups, dim=1)
            value = value.repeat_interleave(self.groups, dim=1)
        attended = F.scaled_dot_product_attention(
            query.to(bias.dtype), key.to(bias.dtype), value.to(bias.dtype), attn_mask=bias
        )
        return self.output(attended.to(x.dtype).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """GELU in its tanh form, or SwiGLU with one fused projection of gate and value."""

    def __init__(self, config: FeldsparConfig) -> None:
        super().__init__()
        self.gated = config.feed_forward == "swiglu"
        inner = config.intermediate_size * (2 if self.gated else 1)
        self.input = nn.Linear(config.hidden_size, inner, bias=config.use_bias)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.use_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, t, d) to (b, t, d)."""
        inner = self.input(x)
        if self.gated:
            gate, up = inner.chunk(2, dim=-1)
            return self.output(F.silu(gate) * up)
        return self.output(F.gelu(inner, approximate="tanh"))


class Block(nn.Module):
    """Attention, then feed-forward, each normalised before and added to the residual stream."""

    def __init__(self, config: FeldsparConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, layer)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, rotary: Rotary | None, bias: Tensor, cache: Cache | None
    ) -> Tensor:
        """Map (b, t, d) to (b, t, d)."""
        x = x + self.attention(self.attention_norm(x), rotary, bias, cache)
        return x + self.feed_forward(self.feed_forward_norm(x))


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
        lengths = self._lengths(x, attention_mask, position_ids, past)
        bias = self._bias(x, attention_mask, past, lengths)
        rotary = self._rotary(x, position_ids, lengths)
        biases = {"full_attention": bias, "sliding_attention": self._window(bias)}
        for block, kind in zip(self.blocks, self.config.layer_types, strict=True):
            x = block(x, rotary, biases[kind], cache)
        return self.final_norm(x)

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

    def _rotary(self, x: Tensor, position_ids: Tensor, lengths: Tensor | None) -> Rotary | None:
        if self.config.position_type != "rotary":
            return None
        dtype = wide_dtype(x)
        rotated = round(self.config.rotary_fraction * self.config.head_dim)
        exponents = torch.arange(0, rotated, 2, device=x.device, dtype=dtype) / rotated
        turned, multiplier = scaled_frequencies(
            exponents, self.config.rotary_base, self.scaling, lengths
        )
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
            bias = -scaled_slopes(slopes, self.scaling, lengths) * distance.to(dtype)
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
        logits = self.lm_head(hidden[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        kept_cache: dict[str, Any] = {CACHE: cache if use_cache else None}
        return CausalLMOutputWithPast(loss=loss, logits=logits, **kept_cache)
