"""Gemma 2 (2408.00118)."""

from tests.huggingface.architectures.families.gemma import GEMMA
from tests.huggingface.architectures.families.llama import rope
from tests.huggingface.architectures.family import Family

FULL, WINDOW = "full_attention", "sliding_attention"

FAMILY = Family(
    "gemma2",
    GEMMA | {"num_hidden_layers": 3, "sliding_window": 4},
    {
        "plain": {},
        "divisor of scores": {"query_pre_attn_scalar": 7},
        "tight caps": {"attn_logit_softcapping": 1.0, "final_logit_softcapping": 2.0},
        "no caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
        "exact form, biases": {"hidden_activation": "gelu", "attention_bias": True},
        "first layer full": {"layer_types": [FULL, WINDOW, WINDOW]},
        "all layers full": {"layer_types": [FULL] * 3},
        "wide window": {"sliding_window": 4096},
        "untied": {"tie_word_embeddings": False},
        "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=8),
    },
    {
        "activation": ({"hidden_activation": "relu"}, "hidden_activation"),
        "bidirectional": ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        "layers": ({"layer_types": [FULL, "chunked_attention", WINDOW]}, "layer_types"),
        "divisor": ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        "longrope": (rope("longrope"), "rope_type"),
    },
    mean_gain=0.0,
)
