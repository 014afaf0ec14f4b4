"""Baselines on the shards' documents: the same bytes as the model's, sums over sources right."""

import lzma

import numpy as np
import pytest

from feldspar.evaluate.baselines.all_baselines import held_out_baselines
from feldspar.evaluate.baselines.compression import compression_baselines
from feldspar.evaluate.baselines.trigram import TokenTrigram
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.evaluate.conftest import held_out_texts


def test_every_baseline_on_every_source(shards: ShardSet) -> None:
    tokenizer = TextTokenizer.load(shards.tokenizer)
    end = tokenizer.end_of_document_id
    stored = shards.read("train", "prose")
    seen = [np.array([end, *stored.document(n)]) for n in range(len(stored.lengths))]
    found = held_out_baselines(shards, tokenizer, seen)
    assert set(found) == {"ngram", "xz", "xz one stream", "zstd", "zstd one stream"}
    texts = {name: [t.encode() for t in texts] for name, texts in held_out_texts().items()}
    sizes = {name: sum(map(len, data)) for name, data in texts.items()}
    for name, data in texts.items():
        expected = 8 * sum(len(lzma.compress(text, preset=9)) for text in data) / sizes[name]
        assert found["xz"][name] == pytest.approx(expected)
        assert found["zstd"][name] == pytest.approx(compression_baselines(data)["zstd_each"])
    trigram = TokenTrigram.fit(seen, tokenizer.vocab_size, end)
    documents = tokenizer.encode_documents(held_out_texts()["prose"])
    nats = sum(loss.nats for loss in trigram.document_losses(documents, [0] * len(documents)))
    assert found["ngram"]["prose"] == pytest.approx(nats / np.log(2) / sizes["prose"])
    for values in found.values():
        total = sum(values[name] * size for name, size in sizes.items())
        assert values["overall"] == pytest.approx(total / sum(sizes.values()))
    limited = held_out_baselines(shards, tokenizer, seen, max_tokens_per_source=30)
    assert limited["xz"]["prose"] != found["xz"]["prose"]
