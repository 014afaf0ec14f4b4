"""Recall is counted by distance, from the model's own predictions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from feldspar.evaluate.text_model import TextModel
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.recall import DOCUMENTS, recall_documents, recall_in, repetitions
from tests.evaluate.conftest import make_model, tokenizer

__all__ = ["make_model", "tokenizer"]


def test_a_value_is_repeated_from_the_last_place_of_its_key() -> None:
    document = np.frombuffer(b"a1b2a1a1b2c3", np.uint8)
    assert list(repetitions(document)) == [(5, 4), (7, 2), (9, 6)]
    assert not list(repetitions(document[:4]))


def test_documents_have_the_length_asked_for(make_model: Callable[..., TextModel]) -> None:
    model = make_model(positions={"type": "alibi"})
    short, long = (recall_documents(model, length) for length in (32, 64))
    assert len(short) == DOCUMENTS and {len(own) for own in short} == {32}
    assert all(np.array_equal(own, other[:32]) for own, other in zip(short, long, strict=True))


def test_shares_and_losses_are_those_of_a_plain_pass(make_model: Callable[..., TextModel]) -> None:
    model = make_model(positions={"type": "alibi"}, std=0.5)
    documents = recall_documents(model, 64)[:5]
    right, nats = [], []
    for document in documents:
        row = torch.tensor([model.before_id, *document.tolist()])[None]
        with torch.no_grad():
            logits = model.decoder.logits(model.decoder(row[:, :-1]))[0].double()
        for place, distance in repetitions(document):
            if 8 < distance <= 32:
                right.append(int(logits[place].argmax()) == document[place])
                nats.append(
                    float(torch.logsumexp(logits[place], -1) - logits[place, document[place]])
                )
    near, far = recall_in(model, documents, [(0, 8), (8, 32)])
    assert far.values == len(right) > 0 and near.values > 0
    assert far.share == pytest.approx(np.mean(right))
    assert far.nats == pytest.approx(np.mean(nats), rel=1e-4)


def test_shares_are_subtracted_seed_by_seed() -> None:
    more = Gain.of_shares([0.9, 0.8], [0.5, 0.2])
    assert more.by_seed == pytest.approx((0.4, 0.6)) and more.mean == pytest.approx(0.5)
