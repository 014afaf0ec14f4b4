"""The text model of Gemma 3 (2503.19786)."""

from typing import Any

from tests.huggingface.architectures.families.gemma2 import FULL, GEMMA, WINDOW
from tests.huggingface.architectures.family import Configuration, Family


def rope(full: dict[str, Any], window: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the keys of rotary positions in full layers and in those with a window."""
    window = {"rope_theta": 100.0, "rope_type": "default"} if window is None else window
    return {"rope_parameters": {FULL: {"rope_theta": 1e4} | full, WINDOW: window}}


def older(written: Configuration) -> Configuration:
    """Return the form before version 5 of transformers."""
    found = dict(written)
    rope = found.pop("rope_parameters")
    full = dict(rope[FULL])
    found["rope_theta"] = full.pop("rope_theta")
    found["rope_local_base_freq"] = rope[WINDOW]["rope_theta"]
    return found if full["rope_type"] == "default" else found | {"rope_scaling": full}


LINEAR = {"rope_type": "linear", "factor": 4.0}

FAMILY = Family(
    "gemma3_text",
    GEMMA | {"num_hidden_layers": 7, "sliding_window": 4},
    {
        "plain": {},
        "bases": rope({"rope_type": "default"}),
        "linear": rope(LINEAR),
        "yarn": rope({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}),
        "divisor of scores, cap": {"query_pre_attn_scalar": 7, "final_logit_softcapping": 2.0},
        "last layer full": {"layer_types": [WINDOW] * 6 + [FULL]},
        "first layer full": {"layer_types": [FULL] + [WINDOW] * 6},
        "all layers full": {"layer_types": [FULL] * 7},
        "no layer full": {"num_hidden_layers": 2},
        "untied, biases": {"tie_word_embeddings": False, "attention_bias": True},
    },
    {
        "scaled windows": (rope({"rope_type": "default"}, LINEAR), "rope_type"),
        "cap of scores": ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        "bidirectional": ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        "layers": ({"layer_types": [FULL]}, "layer_types"),
    },
    mean_gain=0.0,
    older=older,
)
