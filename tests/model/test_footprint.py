"""What the planner counts for the backward pass, against the tensors that real models save."""

from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from feldspar.model.decoder import Decoder
from feldspar.model.footprint import (
    MicroBatch,
    activation_bytes,
    head_bytes,
    product_copy_bytes,
)
from feldspar.recipe.sections.model import ModelSettings

TOLERANCE = 0.15
"""What the documentation promises; most of these agree to a percent."""

LLAMA = {"positions": "rotary", "feed_forward": "swiglu", "norm": "rms", "bias": False}
WIDE_HEADS = {"d_model": 40, "n_heads": 2, "head_dim": 32}


def settings_of(**changes: Any) -> ModelSettings:
    shape = {"n_layers": 2, "d_model": 48, "n_heads": 4, "d_ff": 192, "vocab_size": 307}
    return ModelSettings.model_validate(shape | {"max_sequence_length": 640} | changes)


def measure(settings: ModelSettings, batch: MicroBatch) -> tuple[int, int]:
    """Bytes of all saved storages that are no parameters; bytes that the cross-entropy keeps."""
    decoder = Decoder(settings)
    decoder.recompute_activations = batch.recompute
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    parameters = {item.untyped_storage().data_ptr() for item in decoder.parameters()}
    storages: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    shape = (batch.sequences, batch.context_length)
    tokens = torch.randint(0, 307, shape)
    documents = None
    if batch.documents:
        documents = (torch.arange(shape[1]) // 30).expand(shape).contiguous()
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=batch.bfloat16)
    with saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        loss, _ = decoder.loss(tokens, tokens, documents)
    kept: Any = loss.grad_fn
    return sum(storages.values()), sum(item.untyped_storage().nbytes() for item in kept.grads)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        LLAMA,
        {"positions": "alibi"},
        LLAMA | {"n_kv_heads": 2},
        WIDE_HEADS | {"positions": "none", "tied_embeddings": False},
        {"dropout": 0.1},
        {"dropout": 0.1, "positions": "alibi", "feed_forward": "swiglu"},
    ],
    ids=lambda changes: ",".join(changes) or "default",
)
@pytest.mark.parametrize(
    "batch",
    [
        MicroBatch(2, 128),
        MicroBatch(1, 100),
        MicroBatch(3, 128, bfloat16=True),
        MicroBatch(2, 128, documents=True),
        MicroBatch(2, 640, documents=True, bfloat16=True),
        MicroBatch(1, 640, bfloat16=True),
    ],
    ids=str,
)
def test_activations_are_those_that_autograd_saves(
    changes: dict[str, Any], batch: MicroBatch
) -> None:
    settings = settings_of(**changes)
    saved, _ = measure(settings, batch)
    counted = activation_bytes(settings, batch) + product_copy_bytes(settings, batch)
    assert counted == pytest.approx(saved, rel=TOLERANCE)


def test_the_common_case_is_exact() -> None:
    for changes in ({}, LLAMA, {"positions": "alibi"}):
        settings = settings_of(**changes)
        for batch in (MicroBatch(2, 128), MicroBatch(2, 128, bfloat16=True)):
            counted = activation_bytes(settings, batch) + product_copy_bytes(settings, batch)
            assert counted == measure(settings, batch)[0]


def test_many_probabilities_leave_the_path_that_keeps_them() -> None:
    few, many = MicroBatch(1, 640), MicroBatch(90, 640)
    settings = settings_of()
    scores = 4 * 640 * 640 / 2 * 4
    per_sequence = [activation_bytes(settings, item) / item.sequences for item in (few, many)]
    assert per_sequence[0] - per_sequence[1] > settings.n_layers * scores / 2


@pytest.mark.parametrize("changes", [{}, LLAMA], ids=["default", "llama"])
def test_recomputation_keeps_the_input_of_each_block(changes: dict[str, Any]) -> None:
    one, four = (settings_of(n_layers=n, **changes) for n in (1, 4))
    batch = MicroBatch(2, 128, recompute=True)
    added = measure(four, batch)[0] - measure(one, batch)[0]
    assert activation_bytes(four, batch) - activation_bytes(one, batch) == added
    stored = MicroBatch(2, 128)
    assert activation_bytes(one, batch) == activation_bytes(one, stored), "one block is whole"
    assert activation_bytes(four, batch) < activation_bytes(four, stored) / 2


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_head_keeps_two_gradients_and_one_chunk_of_logits(bfloat16: bool) -> None:
    settings, batch = settings_of(), MicroBatch(8, 640, bfloat16=bfloat16)
    _, kept = measure(settings, batch)
    assert kept == 4 * 48 * (batch.tokens + 307)
    chunk = batch.tokens * 307
    entries = 8 if bfloat16 else 4
    work = batch.product_bytes * 48 * batch.tokens + (4 * 307 * 48 if bfloat16 else 0)
    assert head_bytes(settings, batch) == kept + chunk * entries + work


def test_logits_are_bounded_by_their_buffer() -> None:
    settings = settings_of(vocab_size=50_257)
    small, large = MicroBatch(8, 640), MicroBatch(64, 640)
    added = head_bytes(settings, large) - head_bytes(settings, small)
    assert added == 2 * 4 * 48 * (large.tokens - small.tokens)
