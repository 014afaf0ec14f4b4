"""Tokenizers, token shards, and the exact order in which training reads them."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "END_OF_DOCUMENT": "settings",
        "BpeFiles": "settings",
        "FillInTheMiddle": "settings",
        "HuggingFaceTokenizer": "settings",
        "Select": "settings",
        "ShardSettings": "settings",
        "Tokenizer": "settings",
        "TrainBpe": "settings",
        "Infiller": "infilling",
        "TextTokenizer": "tokenizer",
        "tokenizer_from_settings": "tokenizer_sources",
        "train_bpe": "bpe",
        "measure_fertility": "fertility",
        "ShardReport": "build",
        "build_shards": "build",
        "ShardSet": "shards",
        "compare_sources": "distribution",
        "MixtureSampler": "mixture",
        "MixtureContext": "resolve",
        "ResolvedMixture": "resolve",
        "UnknownTokens": "resolve",
        "resolve_mixture": "resolve",
        "Cursor": "stream",
        "SourceStream": "stream",
        "PhaseData": "sequences",
        "SequenceReader": "sequences",
        "Sequences": "sequences",
        "PrefetchingLoader": "loader",
        "SequenceTensors": "loader",
    },
)
