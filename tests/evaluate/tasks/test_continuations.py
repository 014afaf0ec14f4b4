"""Continuations, cached and batched, against one plain pass each; generation against `generate`."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.evaluate.tasks.continuations import Continuation, score_continuations
from feldspar.evaluate.tasks.generate_until import cut_at_first, generate_until
from feldspar.evaluate.text_model import TextModel
from feldspar.model.generation import generate
from feldspar.recipe.sections.position_scaling import LinearScaling

Make = Callable[..., TextModel]


def brute_force(model: TextModel, context: list[int], tokens: list[int]) -> tuple[float, bool]:
    total, greedy = 0.0, True
    tokens = tokens[-model.context_length :]
    whole = [*context, *tokens]
    whole = whole[-(model.context_length + 1) :]
    for place in range(len(whole) - len(tokens), len(whole)):
        with torch.no_grad():
            logits = model.decoder.logits(model.decoder(torch.tensor([whole[:place]])))[0, -1]
        logits = logits[: model.n_real_vocab].double()
        total += float(logits.log_softmax(-1)[whole[place]])
        greedy &= int(logits.argmax()) == whole[place]
    return total, greedy


@pytest.mark.parametrize("positions", ["learned", "rotary", "alibi"])
def test_equals_brute_force(make_model: Make, positions: str) -> None:
    model = make_model(positions=positions, vocab_size=270, n_real_vocab=257)
    rng = np.random.default_rng(0)
    requests = []
    for length in (1, 4, 15, 30):
        context = rng.integers(0, 256, length).tolist()
        for count in (1, 1, 2, 5, 8, 16, 20):
            requests.append(Continuation(context, rng.integers(0, 256, count).tolist()))
        likeliest = generate(model.decoder, torch.tensor([context[-4:]]), 3, n_real_vocab=257)
        requests.append(Continuation(context[-4:], likeliest[0, -3:].tolist()))
    requests.append(Continuation([1, 2], []))
    for batch in (1, 3, 16):
        scores = score_continuations(model, requests, batch_sequences=batch)
        for score, request in zip(scores, requests, strict=True):
            value, greedy = brute_force(model, list(request.context), list(request.tokens))
            assert score.log_likelihood == pytest.approx(value, rel=1e-5, abs=1e-5)
            assert score.is_greedy == greedy
    assert any(
        score.is_greedy and request.tokens for score, request in zip(scores, requests, strict=True)
    )


def test_a_length_that_scales_positions_is_each_continuations_own(make_model: Make) -> None:
    model = make_model(positions="alibi")
    model.decoder.scale_positions(LinearScaling(type="linear", train_length=4))
    requests = [Continuation([5, 6, 7], list(range(count))) for count in (1, 3, 9)]
    together = score_continuations(model, requests)
    alone = [score_continuations(model, [request])[0] for request in requests]
    assert together == alone


def test_text_until_a_string(make_model: Make) -> None:
    model = make_model(std=0.4, n_real_vocab=256)
    prompt = list(b"the river")
    tokens = generate(model.decoder, torch.tensor([prompt]), 7, n_real_vocab=256)[0, 9:]
    expected = model.tokenizer.decode(tokens.tolist())
    assert generate_until(model, prompt, [], 7) == expected
    stop = expected[2]
    assert generate_until(model, prompt, ["", stop], 7) == expected[: expected.index(stop)]
    drawn = [
        generate_until(model, prompt, [], 7, 1.0, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    long = list(range(50))
    assert generate_until(model, long, [], 7) == generate_until(model, long[-9:], [], 7)
    with pytest.raises(UserError, match="leave no room"):
        generate_until(model, prompt, [], 16)


def test_the_first_of_several_stop_strings_counts() -> None:
    assert cut_at_first("a b c", ["c", "b", "", "x"]) == "a "
    assert cut_at_first("a b c", []) == "a b c"
