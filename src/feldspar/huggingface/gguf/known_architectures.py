"""Architectures of llama.cpp: the Hugging Face class of each, and how their forms differ.

Sources: the keys of ``gguf-py/gguf/constants.py``, the conversions of ``convert_hf_to_gguf.py`` and
the graphs of ``src/models`` in llama.cpp.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from feldspar.huggingface.gguf.tensor_layouts import RotatedPairs
from feldspar.huggingface.tensor_rules import Layout, Transposed

Configuration = Mapping[str, Any]
Layouts = dict[str, Layout]

CONTEXT, WIDTH, BLOCKS = "context_length", "embedding_length", "block_count"
FEED_FORWARD = "feed_forward_length"
HEADS, KV_HEADS = "attention.head_count", "attention.head_count_kv"
KEY_LENGTH, VALUE_LENGTH = "attention.key_length", "attention.value_length"
RMS_EPSILON, EPSILON = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
ROTARY_WIDTH = "rope.dimension_count"


def _no_layouts(_: Configuration) -> Layouts:
    return {}


@dataclass(frozen=True)
class GgufArchitecture:
    """One architecture of llama.cpp."""

    name: str
    """The value of ``general.architecture``."""
    model_type: str
    """The class's ``model_type`` in ``config.json``."""
    keys: Mapping[str, str]
    """Keys of ``config.json`` by GGUF key, which stands in the file behind ``NAME.``."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Values of ``config.json`` that llama.cpp's code stands for, without a key in the file."""
    from_tensors: Mapping[str, str] = field(default_factory=dict)
    """Keys of ``config.json`` that are true where the file holds a tensor."""
    layouts: Callable[[Configuration], Layouts] = _no_layouts
    """Layouts by a part of a tensor's name, such as ``attn_q``, of a model so configured."""
    rotary: bool = True
    """True where positions are rotary, with a base and a scaling."""


_LIKE_LLAMA = {
    CONTEXT: "max_position_embeddings",
    WIDTH: "hidden_size",
    BLOCKS: "num_hidden_layers",
    FEED_FORWARD: "intermediate_size",
    HEADS: "num_attention_heads",
    KV_HEADS: "num_key_value_heads",
    KEY_LENGTH: "head_dim",
    RMS_EPSILON: "rms_norm_eps",
}


def _pairs(configuration: Configuration) -> Layouts:
    return {
        "attn_q": RotatedPairs(configuration["num_attention_heads"]),
        "attn_k": RotatedPairs(configuration["num_key_value_heads"]),
    }


def _conv1d(_: Configuration) -> Layouts:
    return dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_down"), Transposed())


LLAMA = GgufArchitecture(
    "llama",
    "llama",
    _LIKE_LLAMA,
    {"hidden_act": "silu"},
    {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_gate.bias"},
    _pairs,
)
GPT2 = GgufArchitecture(
    "gpt2",
    "gpt2",
    {
        CONTEXT: "n_positions",
        WIDTH: "n_embd",
        BLOCKS: "n_layer",
        FEED_FORWARD: "n_inner",
        HEADS: "n_head",
        EPSILON: "layer_norm_epsilon",
    },
    {"activation_function": "gelu_new"},
    layouts=_conv1d,
    rotary=False,
)

GGUF_ARCHITECTURES: Mapping[str, GgufArchitecture] = {known.name: known for known in (LLAMA, GPT2)}
"""Architectures by llama.cpp's name."""
