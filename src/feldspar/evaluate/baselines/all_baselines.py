"""Measure the baselines that a model should beat on held-out documents: n-grams and compressors."""

from collections.abc import Iterable

import numpy as np

from feldspar.evaluate.baselines.compression import compression_baselines
from feldspar.evaluate.baselines.trigram import TokenTrigram
from feldspar.evaluate.loss.held_out_loss import held_out_documents, require_split, text_of
from feldspar.evaluate.loss.text_loss import total_loss
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

OVERALL = "overall"
NAMES = {
    "xz_each": "xz",
    "zstd_each": "zstd",
    "xz_stream": "xz one stream",
    "zstd_stream": "zstd one stream",
}


def held_out_baselines(
    shards: ShardSet,
    tokenizer: TextTokenizer,
    seen: Iterable[np.ndarray],
    split: str = "test",
    max_tokens_per_source: int | None = None,
) -> dict[str, dict[str, float]]:
    """Return bits per byte by baseline and source; ``overall`` (total bits / total bytes) comes
    first.

    ``ngram`` is a token trigram fitted on ``seen``, parts of the model's training tokens. ``xz``
    and ``zstd`` compress each document alone, or all documents of a source as one stream. The
    documents are those of ``evaluate_shards``. Raises UserError for a split without documents.
    """
    sources = require_split(shards, split)
    trigram = TokenTrigram.fit(seen, tokenizer.vocab_size, tokenizer.end_of_document_id)
    figures: dict[str, dict[str, float]] = {}
    sizes: dict[str, int] = {}
    for source in sources:
        documents = held_out_documents(shards, split, source, tokenizer, max_tokens_per_source)
        texts = [text_of(tokenizer, document).encode() for document in documents.tokens]
        loss = total_loss(trigram.document_losses(documents.tokens, list(map(len, texts))))
        sizes[source] = loss.bytes
        compressed = {NAMES[key]: value for key, value in compression_baselines(texts).items()}
        for name, value in ({"ngram": loss.bits_per_byte} | compressed).items():
            figures.setdefault(name, {})[source] = value
    total = sum(sizes.values())
    return {
        name: {OVERALL: sum(values[source] * sizes[source] for source in sources) / total} | values
        for name, values in figures.items()
    }
