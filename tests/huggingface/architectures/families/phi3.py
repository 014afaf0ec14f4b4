"""Phi-3."""

from tests.huggingface.architectures.families.llama import SHAPE, rope
from tests.huggingface.architectures.family import Family

FAMILY = Family(
    "phi3",
    SHAPE | {"hidden_size": 32, "original_max_position_embeddings": 16},
    {
        "plain": {},
        "tied": {"tie_word_embeddings": True, "num_key_value_heads": 4},
        "window": {"sliding_window": 4},
        "partial positions": rope("default", partial_rotary_factor=0.75),
    },
    {
        "longrope": (
            rope("longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4),
            "rope_type",
        ),
        "older name of longrope": (
            {"rope_parameters": None, "rope_scaling": {"type": "su"}},
            "rope_type",
        ),
    },
)
