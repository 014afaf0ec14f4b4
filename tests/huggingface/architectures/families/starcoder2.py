"""StarCoder 2."""

from tests.huggingface.architectures.families.llama import SHAPE, rope
from tests.huggingface.architectures.family import Family

FAMILY = Family(
    "starcoder2",
    {key: value for key, value in SHAPE.items() if key != "rms_norm_eps"},
    {
        "plain": {},
        "untied": {"tie_word_embeddings": False, "norm_epsilon": 1e-6},
        "no biases of maps": {"use_bias": False},
        "window": {"sliding_window": 4},
        "gelu": {"hidden_act": "gelu"},
        "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=8),
    },
    {"activation": ({"hidden_act": "silu"}, "hidden_act")},
)
