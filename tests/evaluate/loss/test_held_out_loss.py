"""The test split of shards: bytes to the byte, sums that add up, other tokenizers refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.evaluate.loss.documents import text_losses
from feldspar.evaluate.loss.held_out_loss import evaluate_shards
from feldspar.evaluate.loss.text_loss import total_loss
from feldspar.evaluate.text_model import TextModel
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.evaluate.conftest import held_out_texts, shards_with

Make = Callable[..., TextModel]


@pytest.fixture
def model(make_model: Make, shards: ShardSet) -> TextModel:
    tokenizer = TextTokenizer.load(shards.tokenizer)
    return TextModel(make_model(vocab_size=tokenizer.vocab_size).decoder, tokenizer)


def test_each_source_and_overall(model: TextModel, shards: ShardSet) -> None:
    result = evaluate_shards(model, shards)
    assert sorted(result.sources) == ["code", "prose"]
    for name, texts in held_out_texts().items():
        expected = total_loss(text_losses(model, texts))
        assert result.sources[name].tokens == expected.tokens == shards.tokens("test", name)
        assert result.sources[name].bytes == expected.bytes
        assert result.sources[name].nats == pytest.approx(expected.nats, rel=1e-6)
    overall = result.overall
    assert overall.bytes == sum(len(t.encode()) for ts in held_out_texts().values() for t in ts)
    report = result.as_dict()
    assert report["bits_per_byte"] == overall.bits_per_byte
    assert report["sources"]["code"]["tokens"] == result.sources["code"].tokens
    assert report["not_held_out"] == [] and result.warning is None


def test_a_source_without_held_out_text_is_named(model: TextModel, tmp_path: Path) -> None:
    result = evaluate_shards(model, shards_with(tmp_path, {"prose": held_out_texts()["prose"]}))
    assert result.as_dict()["not_held_out"] == ["code"] and list(result.sources) == ["prose"]
    assert result.warning == "the figures do not cover code: the split has no document of it"


def test_a_limit_takes_whole_documents(model: TextModel, shards: ShardSet) -> None:
    limited = evaluate_shards(model, shards, max_tokens_per_source=100).sources["prose"]
    stored = shards.read("test", "prose")
    assert 0 < limited.tokens <= 100
    texts = set(held_out_texts()["prose"])
    assert limited.bytes < sum(len(text.encode()) for text in texts)
    first = model.tokenizer.decode(stored.document(0)[:-1])
    assert first in texts
    single = evaluate_shards(model, shards, max_tokens_per_source=1).sources["prose"]
    assert single.bytes == len(first.encode())
    assert single.nats == pytest.approx(text_losses(model, [first])[0].nats, rel=1e-6)


def test_what_does_not_fit_is_refused(make_model: Make, model: TextModel, shards: ShardSet) -> None:
    with pytest.raises(UserError, match="another tokenizer"):
        evaluate_shards(make_model(), shards)
    with pytest.raises(UserError, match="no dev split") as caught:
        evaluate_shards(model, shards, split="dev")
    assert caught.value.allowed == "test, train, validation"
