"""Configuration of FeldsparForCausalLM. This file needs transformers only."""

from typing import Any

from transformers import PretrainedConfig


class FeldsparConfig(PretrainedConfig):
    """Shape of the decoder. Attention scores are divided by sqrt(head_dim).

    ``position_scaling`` is a mapping with a type: none, linear (with factor, or with train_length
    and scope), ntk (with factor, or with factor and train_length), yarn or llama3 (with both).
    Some scalings grow with the length of the sequence: they use ``scaled_length`` tokens in place
    of that length where it is given. Layers whose ``layer_types`` are sliding_attention see the
    nearest ``sliding_window`` tokens only; with a ``rotary_window_base`` they rotate by that base,
    unscaled. ``use_bias`` is true, false, or a mapping from norm, query_key_value, attention_output
    and feed_forward to one of these. ``reversible`` is a mapping with a type: revnet or reformer,
    and may have fixed_point_bits; without it there is one residual stream.
    """

    model_type = "feldspar"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]

    def __init__(
        self,
        vocab_size: int = 50257,
        max_position_embeddings: int = 2048,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        intermediate_size: int = 3072,
        feed_forward: str = "gelu",
        norm_type: str = "layer",
        norm_epsilon: float = 1e-5,
        norm_place: str = "before",
        norm_unit_offset: bool = False,
        query_key_norm: str = "none",
        branches: str = "sequential",
        embedding_norm: bool = False,
        use_bias: bool | dict[str, bool] = True,
        position_type: str = "learned",
        rotary_fraction: float = 1.0,
        rotary_base: float = 10000.0,
        rotary_interleaved: bool = False,
        rotary_window_base: float | None = None,
        layers_without_positions: list[int] | None = None,
        alibi_max_exponent: float = 8.0,
        alibi_slope_multiplier: float = 1.0,
        alibi_rounded: bool = False,
        position_scaling: dict[str, Any] | None = None,
        scaled_length: int | None = None,
        sliding_window: int | None = None,
        layer_types: list[str] | None = None,
        attention_soft_cap: float | None = None,
        logit_soft_cap: float | None = None,
        iso_flop: dict[str, Any] | None = None,
        reversible: dict[str, Any] | None = None,
        use_cache: bool = True,
        bos_token_id: int | None = None,
        eos_token_id: int | None = None,
        pad_token_id: int | None = None,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.intermediate_size = intermediate_size
        self.feed_forward = feed_forward
        self.norm_type = norm_type
        self.norm_epsilon = norm_epsilon
        self.norm_place = norm_place
        self.norm_unit_offset = norm_unit_offset
        self.query_key_norm = query_key_norm
        self.branches = branches
        self.embedding_norm = embedding_norm
        self.use_bias = use_bias
        self.position_type = position_type
        self.rotary_fraction = rotary_fraction
        self.rotary_base = rotary_base
        self.rotary_interleaved = rotary_interleaved
        self.rotary_window_base = rotary_window_base
        self.layers_without_positions = layers_without_positions or []
        self.alibi_max_exponent = alibi_max_exponent
        self.alibi_slope_multiplier = alibi_slope_multiplier
        self.alibi_rounded = alibi_rounded
        self.position_scaling = position_scaling
        self.scaled_length, self.sliding_window = scaled_length, sliding_window
        self.layer_types = layer_types or ["full_attention"] * num_hidden_layers
        self.attention_soft_cap, self.logit_soft_cap = attention_soft_cap, logit_soft_cap
        self.iso_flop, self.reversible = iso_flop, reversible
        self.use_cache = use_cache
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.pad_token_id = pad_token_id
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(**kwargs)

    def has_bias(self, part: str) -> bool:
        """Tell whether a part (norm, query_key_value, ...) has biases."""
        return self.use_bias.get(part, False) if isinstance(self.use_bias, dict) else self.use_bias
