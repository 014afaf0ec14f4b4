"""GPT-2."""

from tests.huggingface.architectures.family import Family

FAMILY = Family(
    "gpt2",
    {
        "vocab_size": 48,
        "n_positions": 16,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 4,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    },
    {
        "plain": {},
        "own width": {"n_inner": 24, "activation_function": "gelu_pytorch_tanh"},
        "exact form": {"activation_function": "gelu"},
        "rectified": {"activation_function": "relu"},
        "untied": {"tie_word_embeddings": False},
    },
    {
        "activation": ({"activation_function": "silu"}, "activation_function"),
        "scores": ({"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx"),
    },
)
