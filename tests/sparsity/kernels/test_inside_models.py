"""Sparse products inside reversible blocks and beside the measurement of the noise scale."""

from collections.abc import Iterator

import pytest
import torch
from tests.rounding import assert_within_rounding
from torch import Tensor, nn

from feldspar.core.rows import ParameterRole, Role
from feldspar.model.decoder import Decoder
from feldspar.model.layers import Linear
from feldspar.noise_scale.tracker import instrument
from feldspar.recipe.sections.model import ModelSettings
from feldspar.reversible.block import ReversibleBlock
from feldspar.reversible.chain import ReversibleChain
from feldspar.reversible.steps import Part, Step
from feldspar.sparsity.kernels.compiled import Compiled, compiled
from feldspar.sparsity.kernels.linear import SparseLinear

WIDTH = 32


@pytest.fixture
def kernels() -> Compiled:
    found = compiled()
    if found is None:
        pytest.skip("no sparse products on this machine")
    return found


def masked(linear: Linear, kernels: Compiled | None) -> Linear:
    """Drop three quarters of the weights; multiply by the others if there are kernels."""
    draw = torch.Generator().manual_seed(0)
    blocks = torch.rand(linear.out_features // 4, linear.in_features, generator=draw) < 0.25
    mask = blocks.repeat_interleave(4, 0)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(linear.weight.shape, generator=draw) * mask)
    linear.product = None if kernels is None else SparseLinear(mask, kernels)
    return linear


def chain(kernels: Compiled | None) -> ReversibleChain:
    """Two blocks of two streams, each of which changes one by the other."""
    blocks = []
    for _ in range(2):
        steps = [Step("down", (Part(0),), Part(1)), Step("up", (Part(1),), Part(0))]
        maps: dict[str, nn.Module] = {
            name: masked(Linear(WIDTH, WIDTH, False, ParameterRole(Role.HIDDEN)), kernels)
            for name in ("down", "up")
        }
        blocks.append(ReversibleBlock(2, steps, maps))
    return ReversibleChain(blocks)


def gradients(model: ReversibleChain, streams: list[Tensor]) -> Iterator[Tensor]:
    given = [stream.clone().requires_grad_() for stream in streams]
    sum(out.square().sum() for out in model(*given)).backward()  # pyrefly: ignore
    for tensor in (*given, *model.parameters()):
        assert tensor.grad is not None
        yield tensor.grad


def test_reversible_blocks_have_the_gradients_of_dense_products(kernels: Compiled) -> None:
    streams = [torch.randn(70, WIDTH) for _ in range(2)]
    sparse, dense = chain(kernels), chain(None)
    expected = list(gradients(dense, streams))
    for index, weight in enumerate(dense.parameters()):
        expected[2 + index] *= weight != 0
    terms = 4 * (WIDTH + 70)
    assert_within_rounding(list(gradients(sparse, streams)), expected, terms, torch.float32)


def decoder() -> Decoder:
    settings = ModelSettings(
        n_layers=1, d_model=WIDTH, n_heads=2, d_ff=WIDTH, vocab_size=64, max_sequence_length=16
    )
    torch.manual_seed(0)
    model = Decoder(settings)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("coverage", ["norm", "all"])
def test_the_noise_scale_of_masked_matrices_is_that_of_dense_products(
    kernels: Compiled, coverage: str
) -> None:
    found = []
    for own in (kernels, None):
        model = decoder()
        linears = {
            f"{name}.weight": masked(module, own)
            for name, module in model.blocks.named_modules(prefix="blocks")
            if isinstance(module, Linear)
        }
        masks = {name: linear.weight.detach() != 0 for name, linear in linears.items()}
        tracker = instrument(model, coverage, masks=masks)  # pyrefly: ignore
        if coverage == "all":
            assert all(tracker.rules[name] == ["LinearRule"] for name in linears)
        tokens = torch.arange(6 * 16).view(6, 16) % 64
        with tracker.microbatch():
            loss, _ = model.loss(tokens, tokens)
            loss.backward()
        for name, parameter in model.named_parameters():
            if name in masks and parameter.grad is not None:
                parameter.grad.mul_(masks[name])
        statistics = tracker.finish(6)
        model_names = [name for name, _ in model.named_parameters() if name in statistics]
        assert len(model_names) >= 3
        found.append([(one.m1, one.grad_sq) for one in map(statistics.__getitem__, model_names)])
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
