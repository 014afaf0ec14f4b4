"""Mistral."""

from tests.huggingface.architectures.families.llama import SHAPE, rope
from tests.huggingface.architectures.family import Family

FAMILY = Family(
    "mistral",
    SHAPE,
    {
        "no window": {"sliding_window": None},
        "window": {"sliding_window": 4},
        "window beyond the context": {"sliding_window": 20},
        "own head width": {"sliding_window": 6, "head_dim": 6, "tie_word_embeddings": True},
        "linear": {"sliding_window": 4} | rope("linear", factor=2.0),
    },
    {"activation": ({"hidden_act": "relu"}, "hidden_act")},
)
