"""Architectures of llama.cpp: the Hugging Face class of each, and how their forms differ.

Sources: the keys of ``gguf-py/gguf/constants.py``, the conversions of ``convert_hf_to_gguf.py`` and
the graphs of ``src/models`` in llama.cpp.
"""

from collections.abc import Callable, Mapping
from typing import Any

from feldspar.huggingface.gguf.gguf_architecture import (
    BLOCKS,
    CONTEXT,
    EPSILON,
    FEED_FORWARD,
    HEADS,
    KEY_LENGTH,
    KV_HEADS,
    MAX_ALIBI_BIAS,
    RMS_EPSILON,
    SLIDING_WINDOW,
    WIDTH,
    Configuration,
    GgufArchitecture,
)
from feldspar.huggingface.gguf.tensor_layouts import OneAdded, RotatedPairs
from feldspar.huggingface.layer_types import FULL, WINDOW
from feldspar.huggingface.tensor_rules import Interleaved, Layout, Transposed

_SHAPE = {
    CONTEXT: "max_position_embeddings",
    WIDTH: "hidden_size",
    BLOCKS: "num_hidden_layers",
    FEED_FORWARD: "intermediate_size",
    HEADS: "num_attention_heads",
}
_LIKE_LLAMA = _SHAPE | {
    KV_HEADS: "num_key_value_heads",
    KEY_LENGTH: "head_dim",
    RMS_EPSILON: "rms_norm_eps",
}


def _always(**values: Any) -> Callable[[Configuration], dict[str, Any]]:
    return lambda _: values


def _pairs(configuration: Configuration) -> dict[str, Layout]:
    return {
        "attn_q": RotatedPairs(configuration["num_attention_heads"]),
        "attn_k": RotatedPairs(configuration["num_key_value_heads"]),
    }


LLAMA = GgufArchitecture(
    "llama",
    "llama",
    _LIKE_LLAMA,
    implied=_always(hidden_act="silu"),
    from_tensors={
        "attention_bias": ("blk.0.attn_q.bias", True, False),
        "mlp_bias": ("blk.0.ffn_gate.bias", True, False),
    },
    layouts=_pairs,
)


def _without_windows(configuration: Configuration) -> dict[str, Any]:
    n_layers = configuration["num_hidden_layers"]
    return {
        "hidden_act": "silu",
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": n_layers,
        "layer_types": [FULL] * n_layers,
    }


def _smollm3(configuration: Configuration) -> dict[str, Any]:
    rotated = [int((layer + 1) % 4 != 0) for layer in range(configuration["num_hidden_layers"])]
    found = _without_windows(configuration) | {"no_rope_layers": rotated}
    del found["max_window_layers"]
    return found | {"attention_bias": False, "mlp_bias": False}


QWEN2 = GgufArchitecture("qwen2", "qwen2", _LIKE_LLAMA, implied=_without_windows)
QWEN3 = GgufArchitecture(
    "qwen3", "qwen3", _LIKE_LLAMA, implied=lambda c: _without_windows(c) | {"attention_bias": False}
)
SMOLLM3 = GgufArchitecture("smollm3", "smollm3", _LIKE_LLAMA, implied=_smollm3, layouts=_pairs)
OLMO2 = GgufArchitecture(
    "olmo2",
    "olmo2",
    _LIKE_LLAMA,
    implied=_always(hidden_act="silu", attention_bias=False, tie_word_embeddings=False),
)
STARCODER2 = GgufArchitecture(
    "starcoder2",
    "starcoder2",
    _SHAPE | {KV_HEADS: "num_key_value_heads", EPSILON: "norm_epsilon"},
    implied=_always(hidden_act="gelu_new", use_bias=True, sliding_window=None),
)
PHI3 = GgufArchitecture(
    "phi3",
    "phi3",
    _LIKE_LLAMA,
    implied=lambda c: {
        "hidden_act": "silu",
        "sliding_window": None,
        "original_max_position_embeddings": c["max_position_embeddings"],
    },
    derived=lambda c: {"rope.scaling.original_context_length": c["max_position_embeddings"]},
    rotary="partial",
)


def _gemma_norms(_: Configuration) -> dict[str, Layout]:
    names = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm", "output_norm")
    return dict.fromkeys((*names, "attn_q_norm", "attn_k_norm"), OneAdded())


def _gemma(full_every: int) -> Callable[[Configuration], dict[str, Any]]:
    def implied(configuration: Configuration) -> dict[str, Any]:
        layers = range(configuration["num_hidden_layers"])
        return {
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": configuration["head_dim"],
            "layer_types": [WINDOW if (n + 1) % full_every else FULL for n in layers],
            "attention_bias": False,
            "tie_word_embeddings": True,
        }

    return implied


LOGIT_CAP, SCORE_CAP = "final_logit_softcapping", "attn_logit_softcapping"
_GEMMA2 = _LIKE_LLAMA | {SLIDING_WINDOW: "sliding_window", LOGIT_CAP: LOGIT_CAP}
GEMMA = GgufArchitecture(
    "gemma",
    "gemma",
    _LIKE_LLAMA,
    implied=_always(
        hidden_act="gelu_pytorch_tanh",
        hidden_activation="gelu_pytorch_tanh",
        attention_bias=False,
        tie_word_embeddings=True,
    ),
    layouts=_gemma_norms,
)
GEMMA2 = GgufArchitecture(
    "gemma2",
    "gemma2",
    _GEMMA2 | {SCORE_CAP: SCORE_CAP},
    implied=_gemma(2),
    layouts=_gemma_norms,
)
GEMMA3 = GgufArchitecture(
    "gemma3",
    "gemma3_text",
    _GEMMA2,
    optional=(KEY_LENGTH, KV_HEADS, LOGIT_CAP),
    implied=lambda c: _gemma(6)(c) | {"use_bidirectional_attention": False, SCORE_CAP: None},
    layouts=_gemma_norms,
    rotary="two bases",
)


def _grouped(heads: str, kv_heads: str) -> Callable[[Configuration], Mapping[str, Layout]]:
    def layouts(configuration: Configuration) -> dict[str, Layout]:
        n_heads, n_groups = configuration[heads], configuration[kv_heads]
        width = configuration["hidden_size"] // n_heads
        return {"attn_qkv": Interleaved(n_groups, (n_heads // n_groups * width, width, width))}

    return layouts


def _conv1d(_: Configuration) -> dict[str, Layout]:
    return dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_down"), Transposed())


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
    implied=_always(activation_function="gelu_new"),
    layouts=_conv1d,
    rotary=None,
)
GPT_NEOX = GgufArchitecture(
    "gptneox",
    "gpt_neox",
    _SHAPE | {EPSILON: "layer_norm_eps", "use_parallel_residual": "use_parallel_residual"},
    implied=_always(hidden_act="gelu", attention_bias=True, tie_word_embeddings=False),
    layouts=_grouped("num_attention_heads", "num_attention_heads"),
    rotary="partial",
)
BLOOM = GgufArchitecture(
    "bloom",
    "bloom",
    {
        CONTEXT: "seq_length",
        WIDTH: "hidden_size",
        BLOCKS: "n_layer",
        HEADS: "n_head",
        EPSILON: "layer_norm_epsilon",
    },
    derived=lambda c: {FEED_FORWARD: 4 * c["hidden_size"], KV_HEADS: c["n_head"]},
    layouts=_grouped("n_head", "n_head"),
    rotary=None,
)
MPT = GgufArchitecture(
    "mpt",
    "mpt",
    {
        CONTEXT: "max_seq_len",
        WIDTH: "d_model",
        BLOCKS: "n_layers",
        HEADS: "n_heads",
        EPSILON: "layer_norm_epsilon",
    },
    implied=_always(
        expansion_ratio=4,
        no_bias=True,
        learned_pos_emb=False,
        attn_config={"alibi": True, "softmax_scale": None},
    ),
    derived=lambda c: {
        FEED_FORWARD: 4 * c["d_model"],
        KV_HEADS: c["n_heads"],
        MAX_ALIBI_BIAS: 8.0,
    },
    rotary=None,
)


def _falcon(configuration: Configuration) -> dict[str, Any]:
    heads, groups = configuration["num_attention_heads"], configuration["num_kv_heads"]
    two_norms = configuration["num_ln_in_parallel_attn"] == 2
    return {
        "activation": "gelu",
        "alibi": False,
        "bias": False,
        "parallel_attn": True,
        "multi_query": groups == 1,
        "new_decoder_architecture": two_norms or groups not in (1, heads),
    }


FALCON = GgufArchitecture(
    "falcon",
    "falcon",
    _SHAPE
    | {
        FEED_FORWARD: "ffn_hidden_size",
        KV_HEADS: "num_kv_heads",
        EPSILON: "layer_norm_epsilon",
    },
    implied=_falcon,
    from_tensors={"num_ln_in_parallel_attn": ("blk.0.attn_norm_2.weight", 2, 1)},
    layouts=_grouped("num_attention_heads", "num_kv_heads"),
)

GGUF_ARCHITECTURES: Mapping[str, GgufArchitecture] = {
    known.name: known
    for known in (
        LLAMA,
        GPT2,
        QWEN2,
        QWEN3,
        SMOLLM3,
        OLMO2,
        STARCODER2,
        PHI3,
        GEMMA,
        GEMMA2,
        GEMMA3,
        GPT_NEOX,
        BLOOM,
        MPT,
        FALCON,
    )
}
"""Architectures by llama.cpp's name; an export takes the first whose class fits."""
