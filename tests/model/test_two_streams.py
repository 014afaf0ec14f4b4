"""Decoders of two streams: gradients of rebuilt activations, their memory, what is shared."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from feldspar.core.errors import UserError
from feldspar.model.decoder import Decoder
from feldspar.plan.storage_bytes import peak_bytes
from feldspar.reversible.chain import ActivationMemory
from tests.model.test_decoder import DOCUMENTS

Make = Callable[..., Any]
KINDS = ("revnet", "reformer")
REBUILT: tuple[ActivationMemory, ...] = ("recompute", "reversible")


def gradients(
    decoder: Decoder, tokens: Tensor, memory: ActivationMemory, documents: Tensor | None = None
) -> list[Tensor]:
    """The gradients of all parameters; dropout draws the same numbers each time."""
    decoder.activation_memory = memory
    torch.manual_seed(3)
    loss, _ = decoder.loss(tokens, tokens, documents)
    return list(torch.autograd.grad(loss, list(decoder.parameters())))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", REBUILT)
@pytest.mark.parametrize(
    "changes",
    [
        {"positions": "alibi", "dropout": 0.1},
        {"positions": "rotary", "feed_forward": "swiglu", "n_kv_heads": 2},
    ],
    ids=["alibi, dropout", "rotary"],
)
def test_gradients_equal_those_of_stored_activations(
    kind: str,
    memory: ActivationMemory,
    changes: dict[str, Any],
    make_decoder: Make,
    random_tokens: Make,
) -> None:
    decoder = make_decoder(dtype=torch.float64, std=0.1, n_layers=16, reversible=kind, **changes)
    for block in decoder.blocks:
        block.residual_multiplier = 0.7
    tokens = random_tokens(*DOCUMENTS.shape)
    stored = gradients(decoder, tokens, "store", DOCUMENTS)
    for one, other in zip(gradients(decoder, tokens, memory, DOCUMENTS), stored, strict=True):
        assert float((one - other).norm()) <= 1e-10 * float(other.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bfloat16", [False, True])
def test_rounded_sums_give_the_same_bits(
    kind: str, bfloat16: bool, make_decoder: Make, random_tokens: Make
) -> None:
    how = {"type": kind, "fixed_point_bits": 14}
    decoder = make_decoder(std=0.1, n_layers=8, reversible=how, positions="alibi", dropout=0.1)
    tokens = random_tokens(2, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        stored = gradients(decoder, tokens, "store")
        rebuilt = gradients(decoder, tokens, "reversible")
    assert all(map(torch.equal, stored, rebuilt))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_depth(
    kind: str, make_decoder: Make, random_tokens: Make
) -> None:
    tokens = random_tokens(4, 32)

    def peak(depth: int, memory: ActivationMemory) -> int:
        decoder = make_decoder(n_layers=depth, reversible=kind, positions="rotary")
        decoder.activation_memory = memory
        for parameter in decoder.parameters():
            parameter.grad = torch.zeros_like(parameter)
        return peak_bytes(lambda: decoder.loss(tokens, tokens)[0].backward())

    assert peak(32, "reversible") <= 1.05 * peak(4, "reversible")
    assert peak(32, "store") > 4 * peak(4, "store")


@pytest.mark.parametrize("kind", KINDS)
def test_tables_and_documents_are_kept_once(
    kind: str, make_decoder: Make, random_tokens: Make
) -> None:
    """A forward pass keeps the last streams alone; each step refers to the same tables."""
    decoder = make_decoder(n_layers=6, reversible=kind, positions="alibi")
    decoder.activation_memory = "reversible"
    parameters = {tensor.untyped_storage().data_ptr() for tensor in decoder.parameters()}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept.append(tensor)
        return tensor

    tokens = random_tokens(*DOCUMENTS.shape)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = decoder(tokens, document_ids=DOCUMENTS)
    streams = {
        tensor.untyped_storage().data_ptr() for tensor in kept if tensor.shape == hidden.shape
    }
    assert len(streams) == 3  # the two last streams, and their mean, which the final norm reads
    hidden.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_weights_get_no_gradients(
    kind: str, make_decoder: Make, random_tokens: Make
) -> None:
    """Where embeddings and first layers are frozen, the backward pass ends before them."""
    decoder, tokens = make_decoder(n_layers=4, reversible=kind), random_tokens(2, 9)
    trained = {n: p for n, p in decoder.named_parameters() if "blocks.2.feed_forward" in n}
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(name in trained)
    found = {}
    for memory in ("store", "reversible"):
        decoder.activation_memory = memory
        decoder.loss(tokens, tokens)[0].backward()
        found[memory] = {name: parameter.grad for name, parameter in trained.items()}
        assert {n for n, p in decoder.named_parameters() if p.grad is not None} == set(trained)
        decoder.zero_grad()
    torch.testing.assert_close(found["reversible"], found["store"])


def test_a_plain_decoder_cannot_rebuild(make_decoder: Make, random_tokens: Make) -> None:
    decoder, tokens = make_decoder(), random_tokens(2, 9)
    decoder.activation_memory = "reversible"
    with pytest.raises(UserError, match="the decoder is not"):
        decoder.loss(tokens, tokens)
