"""Validation during training: fixed sequences from all of a source, the mean of their losses."""

from collections.abc import Callable
from contextlib import nullcontext
from math import log

import numpy as np
import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.evaluate.loss.training_validation import held_out_sources, validate
from feldspar.evaluate.text_model import TextModel
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.train.next_token import LanguageModelLoss

CPU = torch.device("cpu")


def test_sequences_are_fixed_and_spread_over_the_documents(shards: ShardSet) -> None:
    prose = next(s for s in held_out_sources(shards, "all", 6, 8, 1) if s.name == "prose")
    assert prose.tokens.shape == (6, 9)
    again = held_out_sources(shards, "all", 6, 8, 1)
    assert torch.equal(prose.tokens, next(s for s in again if s.name == "prose").tokens)
    stored = shards.read("validation", "prose")
    windows = (stored.tokens - 1) // 8
    every = next(s for s in held_out_sources(shards, "all", 10_000, 8, 1) if s.name == "prose")
    assert every.tokens.shape == (windows, 9)
    assert torch.equal(every.tokens[:-1, -1], every.tokens[1:, 0])
    assert torch.equal(prose.tokens, every.tokens[[n * windows // 6 for n in range(6)]])


def test_the_loss_is_the_mean_over_tokens(
    shards: ShardSet, make_model: Callable[..., TextModel]
) -> None:
    decoder = make_model(vocab_size=320).decoder
    sources = held_out_sources(shards, "all", 5, 8, 1)
    module = LanguageModelLoss(decoder.train(), shards.vocab_size)
    found = validate(module, sources, 2, CPU, nullcontext())
    assert decoder.training
    for source in sources:
        with torch.no_grad():
            logits = decoder.logits(decoder(source.tokens[:, :-1]))[..., : shards.vocab_size]
        chosen = logits.log_softmax(-1).gather(-1, source.tokens[:, 1:, None])
        loss = found[f"validation/{source.name}/loss"]
        assert loss == pytest.approx(-float(chosen.mean()), rel=1e-5)
        ratio = shards.text_bytes("validation", source.name) / shards.tokens(
            "validation", source.name
        )
        bits = found[f"validation/{source.name}/bits_per_byte"]
        assert bits == pytest.approx(loss / log(2) / ratio)
    losses = [found[f"validation/{source.name}/loss"] for source in sources]
    assert found["validation/loss"] == pytest.approx(np.mean(losses))


def test_sources_are_chosen_by_name(shards: ShardSet) -> None:
    assert [s.name for s in held_out_sources(shards, ("code",), 64, 8, 1)] == ["code"]
    assert held_out_sources(shards, ("code",), 64, 100_000, 1) == []
    with pytest.raises(UserError, match="did you mean 'code'"):
        held_out_sources(shards, ("coda",), 64, 8, 1)
