"""A released model: weights, tokenizer, card and a manifest that anyone can verify offline."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ReleaseFacts": "card",
        "model_card": "card",
        "finish_release": "folder",
        "verify_release": "folder",
    },
)
