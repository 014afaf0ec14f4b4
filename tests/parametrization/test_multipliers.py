"""The four forward multipliers: each acts once, everywhere, by its own value."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from feldspar.model.decoder import Decoder
from feldspar.model.generation import Sampling, generate
from feldspar.parametrization.application import set_forward_multipliers
from feldspar.parametrization.tables import ForwardMultipliers
from feldspar.recipe.sections.model import ModelSettings

MULTIPLIERS = ForwardMultipliers(embedding=3.1, residual=0.7, attention=0.21, output=0.37)
WEIGHTS = {
    "embedding": ("token_embedding", "position_embedding"),
    "residual": ("output",),
    "attention": ("query_key_value",),
    "output": (),
}
"""Modules whose weights (and biases) may take a multiplier instead."""
PLAIN = ForwardMultipliers(1.0, 1.0, 1 / 8**0.5, 1.0)


@pytest.fixture(params=["learned", "rotary", "alibi"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    """Random weights in float64 under multipliers that all differ from 1."""
    settings = ModelSettings.model_validate(
        {
            "n_layers": 2,
            "d_model": 16,
            "n_heads": 2,
            "d_ff": 24,
            "vocab_size": 48,
            "max_sequence_length": 32,
            "positions": request.param,
        }
    )
    model = Decoder(settings).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    set_forward_multipliers(model, MULTIPLIERS)
    return model


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(48, (3, 20), generator=torch.Generator().manual_seed(1))


def test_logits_loss_and_generation_use_the_same_output_multiplier(
    decoder: Decoder, tokens: torch.Tensor
) -> None:
    """A known fault of other code: without targets the logits stay unscaled, so that text is
    drawn at another temperature than the one that the model was trained at."""
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    with torch.no_grad():
        hidden = decoder(inputs)
        logits = decoder.logits(hidden)
        expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        losses = decoder.token_losses(inputs, labels).flatten()
        total, count = decoder.loss(inputs, labels)
    # The fused loss sums in float64 here; labels' losses are the same numbers one by one.
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(total, expected.sum(), rtol=1e-12, atol=1e-12)
    assert count == labels.numel()
    bare = F.linear(hidden, decoder.head_weight)
    torch.testing.assert_close(logits, bare * MULTIPLIERS.output, rtol=1e-12, atol=1e-12)
    for use_cache in (True, False):
        generator = torch.Generator().manual_seed(5)
        text = generate(
            decoder, inputs, 6, sampling=Sampling(1.0), generator=generator, use_cache=use_cache
        )
        replay, seen = torch.Generator().manual_seed(5), inputs
        for _ in range(6):
            with torch.no_grad():
                last = decoder.logits(decoder(seen)[:, -1]).float()
            drawn = torch.multinomial(last.softmax(-1), 1, generator=replay)
            seen = torch.cat([seen, drawn], dim=1)
        assert torch.equal(text, seen)


@pytest.mark.parametrize("name", ["embedding", "residual", "attention", "output"])
def test_each_multiplier_acts_by_its_own_value(
    decoder: Decoder, tokens: torch.Tensor, name: str
) -> None:
    """No coordinate check at one head width sees a wrong attention multiplier: it is read here."""

    def logits(forward: ForwardMultipliers) -> torch.Tensor:
        set_forward_multipliers(decoder, forward)
        with torch.no_grad():
            return decoder.logits(decoder(tokens))

    only = logits(replace(PLAIN, **{name: getattr(MULTIPLIERS, name)}))
    plain = logits(PLAIN)
    assert (only - plain).abs().max() > 1e-3
    assert torch.equal(logits(PLAIN), plain)
    # The same factor put into weights by hand.
    ratio = getattr(MULTIPLIERS, name) / getattr(PLAIN, name)
    with torch.no_grad():
        for parameter_name, parameter in decoder.named_parameters():
            if parameter_name.split(".")[-2] in WEIGHTS[name]:
                # Of the fused projection the queries: scores are bilinear in them.
                parameter[: 16 if name == "attention" else None].mul_(ratio)
    by_hand = logits(PLAIN)
    if name == "embedding":
        by_hand = by_hand / ratio  # the head is tied to the table that was multiplied
    elif name == "output":
        by_hand = by_hand * ratio
    torch.testing.assert_close(only, by_hand, rtol=1e-11, atol=1e-11)


def test_gradients_carry_the_multipliers(decoder: Decoder, tokens: torch.Tensor) -> None:
    """The embedding is multiplied in place: its gradient must not notice."""

    def loss(scale: torch.Tensor) -> torch.Tensor:
        table = decoder.token_embedding.weight
        moved = {"token_embedding.weight": table.detach() + scale * direction}
        call = torch.func.functional_call(decoder, moved, (tokens[:, :-1],))
        return F.cross_entropy(
            F.linear(call, moved["token_embedding.weight"]).flatten(0, 1),
            tokens[:, 1:].flatten(),
        )

    generator = torch.Generator().manual_seed(2)
    direction = torch.randn(48, 16, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(loss, torch.zeros((), dtype=torch.float64, requires_grad=True))
