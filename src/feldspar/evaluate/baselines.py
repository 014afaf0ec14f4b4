"""What a model is to beat on the documents that it is measured on: compressors and a trigram."""

from collections.abc import Iterable

import numpy as np

from feldspar.evaluate.compression import compression_baselines
from feldspar.evaluate.held_out import held_out_documents, require_split, text_of
from feldspar.evaluate.text_loss import total_loss
from feldspar.evaluate.trigram import TokenTrigram
from feldspar.tokens.shards import ShardSet
from feldspar.tokens.tokenizer import TextTokenizer

OVERALL = "overall"


def held_out_baselines(
    shards: ShardSet,
    tokenizer: TextTokenizer,
    seen_tokens: Iterable[np.ndarray],
    split: str = "test",
    max_tokens_per_source: int | None = None,
) -> dict[str, dict[str, float]]:
    """Bits per byte of each baseline on each source, and ``overall`` (total bits, total bytes).

    The baselines are ``trigram``, fitted on ``seen_tokens`` (stretches of what the model was
    trained on, each once), and those of ``compression_baselines``, whose streams are one a source.
    The documents are those of ``evaluate_shards``. Raises UserError for a split without documents.
    """
    sources = require_split(shards, split)
    trigram = TokenTrigram.fit(seen_tokens, tokenizer.vocab_size, tokenizer.end_of_document_id)
    bits: dict[str, dict[str, float]] = {}
    sizes: dict[str, int] = {}
    for source in sources:
        documents = held_out_documents(shards, split, source, tokenizer, max_tokens_per_source)
        texts = [text_of(tokenizer, document).encode() for document in documents.tokens]
        loss = total_loss(trigram.document_losses(documents.tokens, list(map(len, texts))))
        figures = {"trigram": loss.bits_per_byte} | compression_baselines(texts)
        sizes[source] = loss.bytes
        for name, value in figures.items():
            bits.setdefault(name, {})[source] = value
    for values in bits.values():
        total = sum(values[source] * sizes[source] for source in sources)
        values[OVERALL] = total / sum(sizes.values())
    return bits
