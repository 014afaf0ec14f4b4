"""Gaps in held-out documents, against the loss of the whole arranged sequence."""

from collections.abc import Callable
from math import log

import numpy as np
import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.core.streams import stream_seed
from feldspar.evaluate.loss.held_out_loss import held_out_documents
from feldspar.evaluate.tasks.filled_gaps import (
    BOTH_ORDERS,
    MARKS,
    MIDDLE_TOKENS,
    OTHER_SUFFIX,
    WINDOWS_PER_DOCUMENT,
    Gap,
    InfillingScore,
    Reading,
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


def gaps_of(model: TextModel, shards: ShardSet, source: str, seed: int = 1) -> list[Gap]:
    """The gaps that ``evaluate_infilling`` draws in windows that fit in the context."""
    documents = held_out_documents(shards, "test", source, model.tokenizer).tokens
    key = stream_seed(seed, "evaluate.infilling", "test", source)
    return list(gaps(Infiller(model.tokenizer), documents, key, model.context_length - MARKS))


@torch.no_grad()
def test_the_middle_is_scored_after_each_reading(
    infilling_shards: ShardSet, model: TextModel
) -> None:
    scores = evaluate_infilling(model, infilling_shards, 1, readings=tuple(Reading))
    pre, mid, suf = (model.tokenizer.id_of(FIM[place]) for place in range(3))
    assert set(scores) == {"prose", "code"}
    for name, own in scores.items():
        found = gaps_of(model, infilling_shards, name)
        assert len(own) == len({gap.document for gap in found}) > 1
        total = sum(own, InfillingScore())
        assert total.gaps == len(found) > 0
        prompts = {
            Reading.PREFIX_FIRST: lambda gap: [pre, *gap.prefix, suf, *gap.suffix, mid],
            Reading.SUFFIX_FIRST: lambda gap: [pre, suf, *gap.suffix, mid, *gap.prefix],
            Reading.PREFIX_ALONE: lambda gap: gap.prefix,
        }
        for reading, prompt in prompts.items():
            expected = sum(nats(model, [*prompt(g), *g.middle], len(g.middle)) for g in found)
            assert total.nats[reading] == pytest.approx(expected, rel=1e-4)
        for true, other in zip(BOTH_ORDERS, OTHER_SUFFIX, strict=True):
            assert total.nats[other] != pytest.approx(total.nats[true], rel=1e-6)
        middles = "".join(model.tokenizer.decode(gap.middle) for gap in found)
        assert total.bytes == len(middles.encode())
    record = infilling_record(scores)
    first = Reading.PREFIX_FIRST
    total_nats = sum(score.nats[first] for own in scores.values() for score in own)
    assert record["bits_per_byte"][first] == pytest.approx(total_nats / log(2) / record["bytes"])
    assert record["gaps"] == sum(score.gaps for own in scores.values() for score in own)


def test_gaps_are_the_documents_and_hang_on_the_seed(
    infilling_shards: ShardSet, model: TextModel
) -> None:
    one, again, other = (gaps_of(model, infilling_shards, "prose", seed) for seed in (5, 5, 6))
    assert one == again != other
    documents = held_out_documents(infilling_shards, "test", "prose", model.tokenizer).tokens
    for gap in one:
        assert gap.prefix and gap.suffix
        assert 1 <= len(gap.middle) <= MIDDLE_TOKENS
        window = [*gap.prefix, *gap.middle, *gap.suffix]
        assert len(window) + MARKS <= model.context_length
        text = " ".join(map(str, window))
        assert text in " ".join(map(str, documents[gap.document]))


def test_long_documents_have_windows_all_over(model: TextModel) -> None:
    text = np.array(model.tokenizer.encode_documents(["one two three four five\n" * 400])[0])
    found = list(gaps(Infiller(model.tokenizer), [text[:10], text], 0, 20))
    assert {gap.document for gap in found} == {1}  # the first one is too short
    assert WINDOWS_PER_DOCUMENT - 4 <= len(found) <= WINDOWS_PER_DOCUMENT
    assert len({tuple(gap.middle) for gap in found}) > WINDOWS_PER_DOCUMENT / 4


def test_another_suffix_needs_another_document(
    infilling_shards: ShardSet, model: TextModel
) -> None:
    with pytest.raises(UserError, match="needs two held-out documents"):
        evaluate_infilling(
            model, infilling_shards, 1, max_tokens_per_source=1, readings=OTHER_SUFFIX
        )


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
