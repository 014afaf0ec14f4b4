"""The decoder under autocast, compilation, FSDP2, DDP and deepcopy."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from tests.rounding import assert_within_rounding, terms_of

POSITIONS = ["learned", "alibi", {"type": "rotary", "fraction": 0.5, "interleaved": True}]


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), **ONE)
    yield
    dist.destroy_process_group()


ONE = {"rank": 0, "world_size": 1}


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
def test_blocks_compile_as_one_graph_and_keep_their_gradients(
    make_decoder, random_tokens, positions
):
    tokens, gradients = random_tokens(2, 12), []
    torch._dynamo.reset()
    for compiled in (False, True):
        decoder = make_decoder(positions=positions, feed_forward="swiglu")
        if compiled:
            for block in decoder.blocks:
                block.compile(fullgraph=True, backend="aot_eager")
        decoder.loss(tokens, tokens)[0].backward()
        gradients.append([parameter.grad for parameter in decoder.parameters()])
    assert_within_rounding(*gradients, terms_of(decoder, tokens))


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
@pytest.mark.parametrize("documents", [False, True])
def test_bfloat16_autocast_trains_close_to_float32(
    make_decoder, random_tokens, positions, documents
):
    decoder, tokens = make_decoder(positions=positions, std=0.1), random_tokens(2, 12)
    ids = torch.arange(12).div(5, rounding_mode="floor").expand(2, 12) if documents else None
    exact, _ = decoder.loss(tokens, tokens, ids)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = decoder.loss(tokens, tokens, ids)
        hidden = decoder(tokens, document_ids=ids)
    loss.backward()
    assert loss.dtype == torch.float32 and hidden.shape == (2, 12, 16)
    torch.testing.assert_close(loss, exact, rtol=1e-2, atol=0)
    assert all(torch.isfinite(parameter.grad).all() for parameter in decoder.parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_fsdp2_gives_the_same_loss_and_gradients(make_decoder, random_tokens, process_group, tied):
    tokens = random_tokens(2, 12)
    plain, sharded = (make_decoder(tied_embeddings=tied) for _ in range(2))
    mesh = dist.init_device_mesh("cpu", (1,))
    for block in sharded.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for method in sharded.forward_methods:
        register_fsdp_forward_method(sharded, method)
    losses = []
    for decoder in (plain, sharded):
        loss, _ = decoder.loss(tokens, tokens)
        loss.backward()
        losses.append(loss.detach())
    assert torch.equal(*losses)
    for ours, theirs in zip(sharded.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad)


class TokenLoss(nn.Module):
    """What a data-parallel wrapper wraps: its forward is the loss."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens):
        return self.decoder.loss(tokens, tokens)[0]


def test_data_parallel_gives_the_same_gradients(make_decoder, random_tokens, process_group):
    tokens = random_tokens(2, 12)
    plain, wrapped = TokenLoss(make_decoder()), DistributedDataParallel(TokenLoss(make_decoder()))
    for model in (plain, wrapped):
        model(tokens).backward()
    for ours, theirs in zip(wrapped.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_a_copy_is_independent_and_equal(make_decoder, random_tokens):
    decoder, tokens = make_decoder(), random_tokens(1, 6)
    twin = copy.deepcopy(decoder)
    assert torch.equal(twin(tokens), decoder(tokens))
    with torch.no_grad():
        twin.token_embedding.weight.zero_()
    assert decoder.token_embedding.weight.abs().sum() > 0


def test_the_model_room_names_its_parts():
    import feldspar.model

    for name in dir(feldspar.model):
        assert getattr(feldspar.model, name)
