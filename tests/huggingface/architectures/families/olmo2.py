"""OLMo 2."""

from tests.huggingface.architectures.families.llama import SHAPE, rope
from tests.huggingface.architectures.family import Family

FAMILY = Family(
    "olmo2",
    SHAPE,
    {
        "plain": {},
        "tied": {"tie_word_embeddings": True, "num_key_value_heads": 4},
        "biases": {"attention_bias": True},
        "base": rope("default"),
        "own head width": {"head_dim": 6},
    },
    {"activation": ({"hidden_act": "relu"}, "hidden_act")},
)
