"""Gaps in held-out documents, against the loss of the whole arranged sequence."""

from collections.abc import Callable
from math import log

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.core.streams import stream_seed
from feldspar.evaluate.loss.held_out_loss import held_out_documents
from feldspar.evaluate.tasks.filled_gaps import (
    evaluate_infilling,
    gaps,
    infilling_record,
)
from feldspar.evaluate.text_model import TextModel
from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.infilling import Infiller
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.evaluate.conftest import END, LINES, held_out_texts, write_documents
from tests.tokens.conftest import FIM


@pytest.fixture(scope="module")
def infilling_shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """The small shards, with a tokenizer that can mark gaps."""
    folder = tmp_path_factory.mktemp("gaps")
    train = {"prose": [line + "\n" for line in LINES * 10], "code": ["x = 1\n"] * 10}
    documents = write_documents(folder / "documents", {"train": train, "test": held_out_texts()})
    bpe = TrainBpe(vocab_size=290, special_tokens=(END, *FIM))
    build_shards(documents, bpe, ShardSettings(path=folder / "shards"), seed=3, workers=1)
    return ShardSet.open(folder / "shards")


@pytest.fixture(scope="module")
def model(infilling_shards: ShardSet, make_model: Callable[..., TextModel]) -> TextModel:
    decoder = make_model(vocab_size=290, max_sequence_length=64).decoder
    return TextModel(decoder, TextTokenizer.load(infilling_shards.tokenizer))


def nats(model: TextModel, sequence: list[int], scored: int) -> float:
    """Negative log-likelihood of the last ``scored`` tokens of a sequence."""
    tokens = torch.tensor([sequence])
    hidden = model.decoder(tokens[:, :-1])
    log_probabilities = model.decoder.logits(hidden).float().log_softmax(dim=-1)
    chosen = log_probabilities[0].gather(1, tokens[0, 1:, None])
    return -float(chosen[-scored:].sum())


@torch.no_grad()
def test_only_the_middle_is_scored(infilling_shards: ShardSet, model: TextModel) -> None:
    scores = evaluate_infilling(model, infilling_shards, seed=1)
    infiller = Infiller(model.tokenizer)
    assert set(scores) == {"prose", "code"}
    for name, score in scores.items():
        documents = held_out_documents(infilling_shards, "test", name, model.tokenizer).tokens
        key = stream_seed(1, "evaluate.infilling", "test", name)
        found = list(gaps(infiller, documents, model, key))
        assert 0 < score.documents == len(found) <= len(documents)
        filled = sum(nats(model, [*gap.prompt, *gap.middle], len(gap.middle)) for gap in found)
        plain = sum(
            nats(model, [model.end_of_document_id, *gap.prefix, *gap.middle], len(gap.middle))
            for gap in found
        )
        assert score.nats == pytest.approx(filled, rel=1e-4)
        assert score.nats_left_to_right == pytest.approx(plain, rel=1e-4)
        middles = "".join(model.tokenizer.decode(gap.middle) for gap in found)
        assert score.bytes == len(middles.encode())
    record = infilling_record(scores)
    total = sum(score.nats for score in scores.values())
    assert record["bits_per_byte"] == pytest.approx(total / log(2) / record["bytes"])
    assert record["documents"] == sum(score.documents for score in scores.values())


def test_gaps_are_the_documents_and_hang_on_the_seed(
    infilling_shards: ShardSet, model: TextModel
) -> None:
    infiller, tokenizer = Infiller(model.tokenizer), model.tokenizer
    documents = held_out_documents(infilling_shards, "test", "prose", tokenizer).tokens
    one, again, other = (list(gaps(infiller, documents, model, key)) for key in (5, 5, 6))
    assert one == again != other
    texts = {tokenizer.decode(document) for document in documents}
    suffix_token, _ = infiller.suffix_and_middle
    whole = 0
    for gap in one:
        suffix = gap.prompt[gap.prompt.index(suffix_token) + 1 : -1]
        text = "".join(map(tokenizer.decode, (gap.prefix, gap.middle, suffix)))
        assert any(document.startswith(text) for document in texts)
        whole += text in texts
        assert len(gap.prompt) + len(gap.middle) <= model.context_length
    assert whole > 0


def test_a_model_that_cannot_mark_gaps_is_refused(
    shards: ShardSet, make_model: Callable[..., TextModel]
) -> None:
    decoder = make_model(vocab_size=300).decoder
    with pytest.raises(UserError, match="fill_in_the_middle: the tokenizer has no token"):
        evaluate_infilling(TextModel(decoder, TextTokenizer.load(shards.tokenizer)), shards, seed=1)


def test_another_tokenizer_is_refused(
    infilling_shards: ShardSet, shards: ShardSet, make_model: Callable[..., TextModel]
) -> None:
    decoder = make_model(vocab_size=300).decoder
    model = TextModel(decoder, TextTokenizer.load(shards.tokenizer))
    with pytest.raises(UserError, match="another tokenizer"):
        evaluate_infilling(model, infilling_shards, seed=1)
