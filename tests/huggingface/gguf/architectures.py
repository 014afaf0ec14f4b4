"""A small configuration of each class that llama.cpp knows, as transformers would write it."""

from typing import Any

from tests.huggingface.gguf.conftest import N_TOKENS

FULL, WINDOW = "full_attention", "sliding_attention"
ROPE = {"rope_type": "default", "rope_theta": 500.0}
SHAPE: dict[str, Any] = {
    "vocab_size": N_TOKENS,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
}
LIKE_LLAMA = SHAPE | {
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_theta": 500.0,
    "rope_parameters": ROPE,
}
GEMMA = LIKE_LLAMA | {
    "head_dim": 32,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
GEMMA2 = GEMMA | {"query_pre_attn_scalar": 32, "sliding_window": 8}
PARTIAL = {"rope_parameters": ROPE | {"partial_rotary_factor": 0.5}}
FALCON = SHAPE | {"ffn_hidden_size": 96, "rope_parameters": ROPE, "num_kv_heads": 4}
BLOOM = {"vocab_size": N_TOKENS, "hidden_size": 64, "n_layer": 2, "n_head": 4, "seq_length": 128}
MPT = {"vocab_size": N_TOKENS, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "llama: biases in attention": {"model_type": "llama"} | LIKE_LLAMA | {"attention_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": None} | LIKE_LLAMA,
    "qwen2": {"model_type": "qwen2"} | LIKE_LLAMA,
    "qwen2: tied": {"model_type": "qwen2"} | LIKE_LLAMA | {"tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 32} | LIKE_LLAMA,
    "smollm3": {"model_type": "smollm3"} | LIKE_LLAMA | {"num_hidden_layers": 5},
    "olmo2": {"model_type": "olmo2"} | LIKE_LLAMA,
    "starcoder2": {"model_type": "starcoder2", "norm_epsilon": 1e-5, "sliding_window": None}
    | LIKE_LLAMA
    | {"hidden_act": "gelu_pytorch_tanh"},
    "phi3": {"model_type": "phi3", "sliding_window": None} | LIKE_LLAMA,
    "phi3: partial": {"model_type": "phi3", "sliding_window": None} | LIKE_LLAMA | PARTIAL,
    "gemma": {"model_type": "gemma"} | GEMMA,
    "gemma2": {"model_type": "gemma2", "attn_logit_softcapping": 20.0} | GEMMA2,
    "gemma3": {"model_type": "gemma3_text"}
    | GEMMA2
    | {"num_hidden_layers": 7, "rope_parameters": {FULL: ROPE | {"rope_theta": 5e4}, WINDOW: ROPE}},
    "gptneox": {"model_type": "gpt_neox", "tie_word_embeddings": False} | SHAPE | PARTIAL,
    "gptneox: one after the other": {"model_type": "gpt_neox", "tie_word_embeddings": False}
    | SHAPE
    | PARTIAL
    | {"use_parallel_residual": False},
    "bloom": {"model_type": "bloom"} | BLOOM,
    "mpt": {"model_type": "mpt"} | MPT,
    "falcon: one key head": {"model_type": "falcon"} | FALCON,
    "falcon: two norms": {"model_type": "falcon", "new_decoder_architecture": True}
    | FALCON
    | {"num_kv_heads": 2},
}
EXPECTED_NAMES = {"mistral": "llama"}
"""The architecture of llama.cpp where its name is not the first word above."""
GELU = ("starcoder2", "gemma", "gptneox", "bloom", "mpt", "falcon")
"""Beginnings of names of models whose feed-forward layer llama.cpp reads from a table."""
