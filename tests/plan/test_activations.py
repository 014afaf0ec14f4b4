"""The bytes that the planner says a step saves, against the tensors that real steps save."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from feldspar.model.context import SequenceContext
from feldspar.model.cross_entropy import working_bytes
from feldspar.model.decoder import Branch, Decoder
from feldspar.model.low_rank import ROLES as LORA_ROLES
from feldspar.model.rows import model_shapes
from feldspar.plan.activations import MicroBatch, activation_bytes
from feldspar.plan.memory import product_copy_bytes
from feldspar.plan.products import decoder_that_trains
from feldspar.recipe.sections.lora import LoraSettings
from feldspar.recipe.sections.model import ModelSettings

VOCABULARY, WIDTH = 307, 48
DOCUMENT_TOKENS = 30
LLAMA = {"positions": "rotary", "feed_forward": "swiglu", "norm": "rms", "bias": False}
WIDE_HEADS = {"d_model": 40, "n_heads": 2, "head_dim": 32}


def settings_of(**changes: Any) -> ModelSettings:
    shape = {"n_layers": 2, "d_model": WIDTH, "n_heads": 4, "d_ff": 192, "vocab_size": VOCABULARY}
    return ModelSettings.model_validate(shape | {"max_sequence_length": 640} | changes)


class Saved:
    """The storages that a real step saves inside the context, without those of parameters."""

    def __init__(self, decoder: nn.Module) -> None:
        self.parameters = {item.untyped_storage().data_ptr() for item in decoder.parameters()}
        self.storages: dict[int, int] = {}
        self.alive: list[torch.Tensor] = []
        self.hooks = saved_tensors_hooks(self.pack, lambda tensor: tensor)

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.parameters:
            self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor


def step(decoder: Decoder, batch: MicroBatch) -> tuple[torch.Tensor, Saved]:
    """The loss of a real forward pass, and what it saved."""
    shape = (batch.sequences, batch.context_length)
    tokens = torch.randint(0, VOCABULARY, shape)
    documents = None
    if batch.documents:
        documents = (torch.arange(shape[1]) // DOCUMENT_TOKENS).expand(shape).contiguous()
    saved = Saved(decoder)
    with saved.hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=batch.bfloat16):
        loss, _ = decoder.loss(tokens, tokens, documents)
    return loss, saved


def decoder_of(settings: ModelSettings) -> Decoder:
    decoder = Decoder(settings)
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.02)
    return decoder


def measured_bytes(settings: ModelSettings, batch: MicroBatch) -> int:
    """Bytes of what a real step saves, without the copies of matrices that autocast makes."""
    _, saved = step(decoder_of(settings), batch)
    return sum(saved.storages.values()) - product_copy_bytes(model_shapes(settings), batch)


MODELS = [
    {},
    LLAMA,
    {"positions": "alibi"},
    LLAMA | {"n_kv_heads": 2},
    WIDE_HEADS | {"positions": "none", "tied_embeddings": False},
    {"positions": {"type": "rotary", "fraction": 0.5, "interleaved": True}, "d_model": 64},
    {"dropout": 0.1},
    {"dropout": 0.1, "positions": "alibi", "feed_forward": "swiglu"},
    {"sliding_window": {"tokens": 40}},
    LLAMA | {"n_kv_heads": 2, "sliding_window": {"tokens": 100, "full_every": 2}},
    {"positions": "alibi", "sliding_window": {"tokens": 70, "full_every": 2}},
    {"dropout": 0.1, "sliding_window": {"tokens": 40}},
    LLAMA | {"n_kv_heads": 2, "query_key_norm": "head", "norm": {"type": "rms", "place": "both"}},
    LLAMA | {"attention_soft_cap": 9.0, "logit_soft_cap": 5.0, "feed_forward": "geglu"},
    {"branches": "parallel", "feed_forward": "gelu_erf", "positions": "rotary"},
    {"embedding_norm": True, "positions": "alibi", "branches": "parallel_one_norm"},
    LLAMA | {"sparse_iso_flop": {"type": "parallel", "sparsity": 0.75}},
    LLAMA | {"sparse_iso_flop": {"type": "factorized", "sparsity": 0.75}},
    {"sparse_iso_flop": {"type": "doped", "sparsity": 0.75}},
    LLAMA | {"norm": {"type": "rms", "unit_offset": True}, "query_key_norm": "whole"},
]
BATCHES = [
    MicroBatch(2, 128),
    MicroBatch(1, 100),
    MicroBatch(3, 128, bfloat16=True),
    MicroBatch(2, 128, documents=True),
    MicroBatch(2, 640, documents=True, bfloat16=True),
    MicroBatch(1, 640, bfloat16=True),
]


@pytest.mark.parametrize("changes", MODELS, ids=lambda changes: ",".join(changes) or "default")
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_activations_are_those_that_a_step_saves(
    changes: dict[str, Any], batch: MicroBatch
) -> None:
    settings = settings_of(**changes)
    assert activation_bytes(settings, batch) == measured_bytes(settings, batch)


LORA = LoraSettings(rank=4, alpha=8)


@pytest.mark.parametrize("changes", [{}, LLAMA, {"dropout": 0.1}], ids=["gpt", "llama", "dropout"])
@pytest.mark.parametrize("batch", [BATCHES[0], MicroBatch(3, 110, bfloat16=True)], ids=str)
@pytest.mark.parametrize(
    "lora",
    [
        LORA,
        LORA.model_copy(update={"targets": ("query", "blocks.*.feed_forward.*")}),
        LORA.model_copy(update={"dropout": 0.2}),
    ],
    ids=["all", "parts", "dropout"],
)
def test_frozen_matrices_keep_no_input_and_lora_keeps_its_own(
    changes: dict[str, Any], batch: MicroBatch, lora: LoraSettings
) -> None:
    settings = settings_of(**changes)
    rows = model_shapes(settings, lora=lora).rows
    trained = frozenset(row.name for row in rows if row.role in LORA_ROLES)
    decoder = decoder_that_trains(settings, lora, trained)
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.02)
    _, saved = step(decoder, batch)
    # Copies that autocast makes of matrices are counted beside.
    shapes = {tuple(sorted(row.shape)) for row in rows}
    for tensor in saved.alive:
        if tensor.dtype == torch.bfloat16 and tuple(sorted(tensor.shape)) in shapes:
            saved.storages.pop(tensor.untyped_storage().data_ptr(), None)
    expected = activation_bytes(settings, batch, lora, trained)
    assert sum(saved.storages.values()) == expected
    assert expected < activation_bytes(settings, batch, lora)


def test_many_probabilities_leave_the_path_that_keeps_them() -> None:
    few, many = MicroBatch(1, 640), MicroBatch(90, 640)
    settings = settings_of()
    scores = 4 * 640 * 640 / 2 * 4
    per_sequence = [activation_bytes(settings, item) / item.sequences for item in (few, many)]
    assert per_sequence[0] - per_sequence[1] > settings.n_layers * scores / 2


def test_dropout_on_an_accelerator_saves_a_byte_an_entry_and_no_probabilities() -> None:
    batch = MicroBatch(2, 128, on_accelerator=True, bfloat16=True)
    plain, dropped = (activation_bytes(settings_of(dropout=p), batch) for p in (0.0, 0.1))
    n_masks = 1 + 2 * settings_of().n_layers
    assert dropped - plain == n_masks * batch.tokens * WIDTH
    assert plain == activation_bytes(settings_of(), MicroBatch(2, 128, bfloat16=True))


@pytest.mark.parametrize("documents", [False, True], ids=["plain", "documents"])
@pytest.mark.parametrize(
    "changes",
    [{}, LLAMA, {"positions": "alibi"}, {"sliding_window": {"tokens": 40, "full_every": 4}}],
    ids=["gpt", "llama", "alibi", "window"],
)
def test_recomputation_saves_inputs_and_one_block(changes: dict[str, Any], documents: bool) -> None:
    settings = settings_of(n_layers=4, **changes)
    batch = MicroBatch(2, 128, documents=documents, activation_memory="recompute")
    decoder = decoder_of(settings)
    block = decoder.blocks[-1]
    again: list[Saved] = []

    def begin(block: nn.Module, inputs: tuple[torch.Tensor, object]) -> None:
        again.append(Saved(block))
        again[-1].parameters.add(inputs[0].untyped_storage().data_ptr())
        again[-1].hooks.__enter__()

    def end(*_: object) -> None:
        again[-1].hooks.__exit__()

    block.register_forward_pre_hook(begin)
    block.register_forward_hook(end)
    decoder.activation_memory = "recompute"
    _, saved = step(decoder, batch)
    inputs_and_block = sum(saved.storages.values()) + sum(again[0].storages.values())
    assert activation_bytes(settings, batch) == inputs_and_block
    stored = MicroBatch(2, 128, documents=documents)
    assert activation_bytes(settings, batch) < activation_bytes(settings, stored) / 2


@pytest.mark.parametrize(
    ("kind", "parts"), [("revnet", ("layer",)), ("reformer", ("attention", "feed_forward"))]
)
def test_a_reversible_pass_saves_last_streams_and_one_branch(
    kind: str, parts: tuple[Branch, ...]
) -> None:
    batch = MicroBatch(2, 128, activation_memory="reversible")
    counted = []
    for n_layers in (2, 5):
        settings = settings_of(n_layers=n_layers, reversible=kind)
        decoder = decoder_of(settings)
        decoder.activation_memory = "reversible"
        _, saved = step(decoder, batch)
        x = torch.randn(2, 128, WIDTH, requires_grad=True)
        sizes = []
        for part in parts:
            branch = Saved(decoder.blocks[0])
            branch.parameters.add(x.untyped_storage().data_ptr())
            with branch.hooks:
                decoder.blocks[0](x, SequenceContext(), part)
            sizes.append(sum(branch.storages.values()))
        counted.append(activation_bytes(settings, batch))
        assert counted[-1] == sum(saved.storages.values()) + max(sizes)
    assert counted[0] == counted[1]


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_head_keeps_two_gradients_and_one_chunk_of_logits(bfloat16: bool) -> None:
    settings, batch = settings_of(), MicroBatch(8, 640, bfloat16=bfloat16)
    loss, _ = step(decoder_of(settings), batch)
    function: Any = loss.grad_fn
    kept = sum(item.untyped_storage().nbytes() for item in function.grads)
    assert kept == 4 * WIDTH * (batch.tokens + VOCABULARY)
    entries, product_bytes = (8, 2) if bfloat16 else (4, 4)
    work = product_bytes * WIDTH * batch.tokens + (4 * VOCABULARY * WIDTH if bfloat16 else 0)
    counted = working_bytes(batch.tokens, VOCABULARY, WIDTH, product_bytes, "cpu")
    assert counted == kept + batch.tokens * VOCABULARY * entries + work


def test_logits_are_bounded_by_their_buffer() -> None:
    small, large = (working_bytes(n, 50_257, WIDTH, 4, "cpu") for n in (8 * 640, 64 * 640))
    assert large - small == 2 * 4 * WIDTH * 56 * 640
