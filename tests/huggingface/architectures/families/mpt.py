"""MPT."""

from typing import Any

from tests.huggingface.architectures.family import Family


def attention(**keys: object) -> dict[str, Any]:
    """Return a configuration's section on attention."""
    return {"attn_config": keys}


FAMILY = Family(
    "mpt",
    {"vocab_size": 48, "d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 16},
    {
        "plain": {},
        "twelve heads": {"n_heads": 12, "d_model": 24},
        "scores": attention(softmax_scale=0.3),
        "untied": {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-3},
    },
    {
        "clipping": (attention(clip_qkv=6.0), "clip_qkv"),
        "norms of queries": (attention(qk_ln=True), "qk_ln"),
        "prefixes": (attention(prefix_lm=True), "prefix_lm"),
        "learned positions": (attention(alibi=False), "alibi"),
        "one key head": (attention(attn_type="multiquery_attention"), "attn_type"),
        "documents": (attention(attn_uses_sequence_id=True), "attn_uses_sequence_id"),
        "scale of scores": (attention(softmax_scale=-1.0), "softmax_scale"),
        "biases": ({"no_bias": False}, "no_bias"),
        "logits": ({"logit_scale": "inv_sqrt_d_model"}, "logit_scale"),
        "width": ({"expansion_ratio": 2}, "expansion_ratio"),
        "norm": ({"norm_type": "rmsnorm"}, "norm_type"),
    },
)
