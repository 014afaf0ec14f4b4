"""What is done to a model before training: rows for the tokens of an extended tokenizer."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "AdaptSettings": "settings",
        "EmbeddingAdaptation": "settings",
        "Adaptation": "embeddings",
        "NewTokens": "embeddings",
        "adapt_embeddings": "embeddings",
        "Donor": "donor",
    },
)
