"""What compressors and counting need for the same held-out documents, source by source."""

from collections.abc import Iterable
from math import log

import numpy as np

from feldspar.evaluate.compression import compression_baselines
from feldspar.evaluate.held_out import held_out_documents, require_split, text_of
from feldspar.evaluate.trigram import TokenTrigram
from feldspar.tokens.shards import ShardSet
from feldspar.tokens.tokenizer import TextTokenizer

OVERALL = "overall"
NAMES = {
    "xz_each": "xz",
    "zstd_each": "zstd",
    "xz_stream": "xz one stream",
    "zstd_stream": "zstd one stream",
}


def held_out_baselines(
    shards: ShardSet, tokenizer: TextTokenizer, seen: Iterable[np.ndarray], split: str = "test"
) -> dict[str, dict[str, float]]:
    """Bits per byte by baseline and source, ``overall`` first.

    ``xz`` and ``zstd`` see each document by itself, or a source's documents as one stream;
    ``ngram`` is a token trigram fitted on ``seen``, the tokens that the model was trained on.
    """
    trigram = TokenTrigram.fit(seen, tokenizer.vocab_size, tokenizer.end_of_document_id)
    bits: dict[str, dict[str, float]] = {name: {} for name in ("ngram", *NAMES.values())}
    sizes: dict[str, int] = {}
    for source in require_split(shards, split):
        documents = held_out_documents(shards, split, source, tokenizer)
        sizes[source] = documents.text_bytes
        texts = [text_of(tokenizer, tokens).encode() for tokens in documents.tokens]
        for key, figure in compression_baselines(texts).items():
            bits[NAMES[key]][source] = figure * documents.text_bytes
        losses = trigram.document_losses(documents.tokens, [len(text) for text in texts])
        bits["ngram"][source] = sum(loss.nats for loss in losses) / log(2)
    total = sum(sizes.values())
    return {
        name: {OVERALL: sum(values.values()) / total}
        | {source: value / sizes[source] for source, value in values.items()}
        for name, values in bits.items()
    }
