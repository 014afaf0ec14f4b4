"""Gradients, buffers and random draws of the three ways to keep activations are the same."""

import copy

import pytest
import torch
from torch import Tensor, nn

from feldspar.core.errors import NonFiniteError, RunError, UserError
from feldspar.reversible.block import ReversibleBlock
from feldspar.reversible.chain import ReversibleChain, reconstruction_errors
from feldspar.reversible.recompute import recomputed
from feldspar.reversible.replay import is_recomputing
from feldspar.reversible.steps import Part, Step
from tests.reversible.chains import (
    MODES,
    chain_of,
    gradients,
    image,
    relative_error,
    weighted_sum,
)
from tests.rounding import assert_within_rounding, rounding, terms_of

DEPTH = 15
"""With the expanding block: 16."""


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_equals_plain_autograd_in_float64(mode, dropout):
    plain, ours = (chain_of(DEPTH, dropout=dropout) for _ in range(2))
    plain.memory, ours.memory = "store", mode
    results = []
    for chain in (plain, ours):
        x = image().requires_grad_()
        torch.manual_seed(7)
        found = gradients(chain, lambda x=x, chain=chain: weighted_sum(chain(x)))
        results.append((found | {"input": x.grad}, torch.get_rng_state()))
    assert relative_error(results[1][0], results[0][0]) < rounding(
        terms_of(ours, image()), torch.float64
    )
    assert torch.equal(results[1][1], results[0][1]), "the generator went another way"
    for ours_buffer, plain_buffer in zip(ours.buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours_buffer, plain_buffer)
    assert int(ours.state_dict()["blocks.0.functions.up.norm.num_batches_tracked"]) == 1


def test_the_inverse_returns_the_inputs_and_leaves_buffers_alone():
    chain = chain_of(8)
    outputs = chain(image())
    before = copy.deepcopy(chain.state_dict())
    (rebuilt,) = chain.inverse(*outputs)
    bound = rounding(terms_of(chain, image()), torch.float64)
    assert_within_rounding(rebuilt, image(), terms_of(chain, image()))
    assert len(errors := reconstruction_errors(chain, image())) == 9
    assert all(error < bound for error in errors)
    assert all(torch.equal(before[name], value) for name, value in chain.state_dict().items())


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_on_the_grid_gradients_are_bit_equal(autocast):
    found = []
    for mode in MODES:
        chain = chain_of(31, torch.float32, bits=14)
        chain.memory = mode
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs = chain(image(torch.float32))
        assert all(output.dtype == torch.float32 for output in outputs)
        found.append(gradients(chain, lambda outputs=outputs: weighted_sum(outputs)))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]) and torch.equal(value, found[2][name]), name
    assert set(reconstruction_errors(chain, image(torch.float32))) == {0.0}


@pytest.mark.parametrize("mode", MODES)
def test_sums_beyond_the_grid_are_refused(mode):
    chain = chain_of(1, torch.float32, bits=14)
    chain.memory = mode
    with pytest.raises(RuntimeError, match=r"exact only below 1024") as caught:
        chain(2000 * image(torch.float32))
    assert isinstance(caught.value, RunError)
    assert caught.value.where == "block 0, step 1 (up)"


@pytest.mark.parametrize("bits", [None, 14])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("mode", MODES)
def test_values_that_are_not_finite_are_passed_on(mode, value, bits):
    """The guards of a training step then see a loss that is not finite."""
    chain = chain_of(2, torch.float32, bits=bits)
    chain.memory = mode
    x = image(torch.float32)
    x[0, 0, 0, 0] = value
    outputs = chain(x)
    assert all(output.isnan().any() for output in outputs)
    found = gradients(chain, lambda: weighted_sum(outputs))
    assert all(gradient.isnan().any() for gradient in found.values())


def test_the_first_block_whose_streams_are_not_finite_is_named():
    chain = chain_of(3)
    with torch.no_grad():
        chain.get_parameter("blocks.2.functions.down.project.bias").fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="block 2 returns streams that are not finite"):
        reconstruction_errors(chain, image())
    with pytest.raises(NonFiniteError, match="enter the chain"):
        reconstruction_errors(chain, torch.full_like(image(), torch.inf))


def test_anchors_bound_the_drift():
    plain, ours = chain_of(23, torch.float32), chain_of(23, torch.float32)
    plain.memory = "store"
    expected = gradients(plain, lambda: weighted_sum(plain(image(torch.float32))))
    errors = []
    for anchor_every in (None, 4, 1):
        ours.anchor_every = anchor_every
        found = gradients(ours, lambda: weighted_sum(ours(image(torch.float32))))
        errors.append(relative_error(found, expected))
    assert errors[2] < errors[0] / 2 and errors[1] < errors[0]
    assert errors[0] < rounding(terms_of(ours, image()), torch.float32)


@pytest.mark.parametrize("mode", MODES[1:])
def test_autograd_sees_ordinary_parameters(mode):
    """Hooks fire once, ``autograd.grad`` finds all, calls and backward passes may repeat."""
    chain = chain_of(3)
    chain.memory = mode
    calls = []
    for name, parameter in chain.named_parameters():
        parameter.register_hook(lambda grad, name=name: calls.append(name))
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: calls.append(name))
    once = gradients(chain, lambda: weighted_sum(chain(image())))
    bound = rounding(terms_of(chain, image()), torch.float64)
    assert sorted(calls) == sorted(2 * [name for name, _ in chain.named_parameters()])

    found = torch.autograd.grad(weighted_sum(chain(image())), list(chain.parameters()))
    assert relative_error(dict(zip(once, found, strict=True)), once) < bound

    twice = gradients(chain, lambda: weighted_sum(chain(image())) + weighted_sum(chain(image())))
    assert relative_error(twice, {name: 2 * value for name, value in once.items()}) < bound

    chain.zero_grad()
    loss = weighted_sum(chain(image()))
    loss.backward(retain_graph=True)
    loss.backward()
    again = {name: parameter.grad for name, parameter in chain.named_parameters()}
    assert relative_error(again, {name: 2 * value for name, value in once.items()}) < bound
    copy.deepcopy(chain)


def test_streams_between_two_chains_may_be_read_by_another_loss():
    found = []
    for mode in MODES:
        first, second = chain_of(3), ReversibleChain(list(chain_of(3).blocks)[1:])
        first.memory = second.memory = mode

        def loss(first=first, second=second):
            middle = first(image())
            return weighted_sum(second(*middle)) + middle[1].pow(3).sum()

        found.append(gradients(nn.ModuleList([first, second]), loss))
    bound = rounding(terms_of(nn.ModuleList([first, second]), image()), torch.float64)
    assert relative_error(found[1], found[0]) < bound
    assert relative_error(found[2], found[0]) < bound


class Attention(nn.Module):
    """Single-head attention with a bias on its scores."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.query_key_value = nn.Linear(8, 24)

    def forward(self, x: Tensor, bias: Tensor, scale: Tensor, mask: Tensor | None) -> Tensor:
        """(b, t, 8), scores' bias (t, t), a constant scale, and keys that are seen, if not all."""
        query, key, value = self.query_key_value(self.norm(x)).chunk(3, -1)
        scores = query @ key.mT * scale + bias
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ value


@pytest.mark.parametrize("mask", [None, torch.ones(5, 5).tril().bool()], ids=["none", "causal"])
def test_a_reversible_transformer_reads_a_context_that_gets_a_gradient(mask):
    found = []
    for mode in MODES:
        torch.manual_seed(3)
        steps = [
            Step("attention", (Part(1),), Part(0), reads_context=True),
            Step("feed_forward", (Part(0),), Part(1)),
        ]
        chain = ReversibleChain(
            [
                ReversibleBlock(
                    2,
                    steps,
                    {
                        "attention": Attention(),
                        "feed_forward": nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU()),
                    },
                )
                for _ in range(4)
            ],
            mode,
        ).double()
        hidden = torch.randn(2, 5, 8, dtype=torch.float64).requires_grad_()
        bias = torch.randn(5, 5, dtype=torch.float64).requires_grad_()
        scale = torch.tensor(0.3, dtype=torch.float64)
        outputs = chain(hidden, hidden, bias, scale, mask)
        grads = gradients(chain, lambda outputs=outputs: weighted_sum(outputs))
        found.append(grads | {"bias": bias.grad, "hidden": hidden.grad})
    bound = rounding(terms_of(chain, hidden), torch.float64)
    rebuilt = chain.inverse(*outputs, bias, scale, mask)
    assert_within_rounding(rebuilt[0], hidden, terms_of(chain, hidden))
    assert max(reconstruction_errors(chain, hidden, hidden, bias, scale, mask)) < bound
    assert relative_error(found[1], found[0]) < bound
    assert relative_error(found[2], found[0]) < bound


def test_frozen_and_shared_parameters_and_a_stream_that_no_step_writes():
    found = []
    for mode in MODES:
        torch.manual_seed(5)
        shared, frozen = nn.Linear(4, 4), nn.Linear(4, 4)
        frozen.requires_grad_(False)
        steps = [Step("shared", (Part(1),), Part(0)), Step("frozen", (Part(1),), Part(2))]
        steps.append(Step("shared", (Part(1),), Part(2)))
        blocks = [ReversibleBlock(3, steps, {"shared": shared, "frozen": frozen}) for _ in range(2)]
        chain = ReversibleChain(blocks, mode).double()
        x = torch.randn(3, 2, 4, dtype=torch.float64).requires_grad_()
        grads = gradients(chain, lambda: weighted_sum(chain(*x)))  # noqa: B023
        assert len(grads) == 2
        found.append(grads | {"x": x.grad})
    bound = rounding(terms_of(chain, x), torch.float64)
    assert relative_error(found[1], found[0]) < bound
    assert relative_error(found[2], found[0]) < bound


@pytest.mark.parametrize("mode", MODES[1:])
def test_what_cannot_be_right_is_refused(mode):
    chain = chain_of(1)
    chain.memory = mode
    loss = weighted_sum(chain(image()))
    with torch.no_grad():
        next(chain.parameters()).mul_(2)
    message = "changed between the forward and the backward pass"
    with pytest.raises(RuntimeError, match=message) as caught:
        loss.backward()
    assert isinstance(caught.value, RunError)
    loss = weighted_sum(chain(image()))
    with pytest.raises(NotImplementedError, match="second derivatives") as caught:
        torch.autograd.grad(loss, list(chain.parameters()), create_graph=True)
    assert isinstance(caught.value, UserError) and "memory='store'" in str(caught.value)


def test_hooks_of_modules_can_tell_the_second_call():
    chain, calls = chain_of(1), []
    chain.blocks[0].functions["up"].register_forward_hook(lambda *_: calls.append(is_recomputing()))
    weighted_sum(chain(image())).backward()
    assert calls == [False, True]
    with torch.no_grad():
        chain(image())
    assert calls == [False, True, False] and not is_recomputing()


@pytest.mark.parametrize("mode", MODES[1:])
def test_the_mode_of_the_forward_pass_counts(mode):
    chain = chain_of(1, dropout=0.5)
    chain.memory = mode
    torch.manual_seed(2)
    expected = gradients(chain, lambda: weighted_sum(chain(image())))
    torch.manual_seed(2)
    loss = weighted_sum(chain(image()))
    chain.eval()
    assert relative_error(gradients(chain, lambda: loss), expected) == 0
    assert not chain.blocks[0].training


class Twice(nn.Module):
    """A module that is reached by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = nn.ModuleList([self.first])

    def forward(self, x: Tensor) -> Tensor:
        """Run the shared map by both names."""
        return self.again[0](self.first(x).tanh())


def test_a_submodule_that_is_reached_by_two_names_keeps_its_weights():
    torch.manual_seed(0)
    module, x = Twice().double(), torch.randn(3, 4, dtype=torch.float64)
    weights = list(module.parameters())
    plain = torch.autograd.grad(module(x).square().sum(), weights)
    (output,) = recomputed(module, x)
    output.square().sum().backward()
    assert all(one is other for one, other in zip(module.parameters(), weights, strict=True))
    assert all(torch.equal(weight.grad, one) for weight, one in zip(weights, plain, strict=True))


def test_a_recomputed_module_takes_inputs_without_gradient():
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    torch.manual_seed(0)
    plain = gradients(module, lambda: module(x).pow(3).sum())
    torch.manual_seed(0)
    ours = gradients(module, lambda: recomputed(module, x)[0].pow(3).sum())
    assert relative_error(ours, plain) == 0


class Centred(nn.Module):
    """Subtracts a moving average, which each call replaces by another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        """(b, 4) to (b, 4)."""
        self.mean = self.mean.lerp(x.detach().mean(0), 0.5)
        return ((x - self.mean) * self.scale).tanh()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
        lambda: nn.utils.spectral_norm(nn.Linear(4, 4)),
        Centred,
    ],
    ids=["parametrization", "hook", "replaced"],
)
def test_a_function_may_read_a_buffer_that_it_writes(make):
    """Two calls before the backward pass."""
    found, buffers = [], []
    for mode in MODES:
        torch.manual_seed(4)
        steps = [Step("f", (Part(0),), Part(1)), Step("g", (Part(1),), Part(0))]
        blocks = [ReversibleBlock(2, steps, {"f": make(), "g": make()}) for _ in range(3)]
        chain = ReversibleChain(blocks, mode).double()
        x = torch.randn(5, 4, dtype=torch.float64)
        loss = weighted_sum(chain(x, x)) + weighted_sum(chain(x + 1, x))
        found.append(gradients(chain, lambda loss=loss: loss))
        buffers.append(list(chain.buffers()))
    bound = rounding(terms_of(chain, x), torch.float64)
    for other, kept in zip(found[1:], buffers[1:], strict=True):
        assert relative_error(other, found[0]) < bound
        torch.testing.assert_close(kept, buffers[0], rtol=bound, atol=bound)


FUNCTION = nn.Identity()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Step("f", (Part(0),), Part(0))], "cannot be inverted"),
        ([Step("f", (Part(0, 0, 3),), Part(0, 2))], "cannot be inverted"),
        ([Step("f", (Part(2),), Part(0))], "stream 2 does not exist"),
        ([Step("f", (Part(0),), Part(3), creates=True)], "must create a whole stream"),
        ([Step("g", (Part(0),), Part(1))], "do not match"),
    ],
)
def test_steps_that_cannot_be_undone_are_refused(steps, message):
    with pytest.raises(UserError, match=message):
        ReversibleBlock(2, steps, {"f": FUNCTION})


def test_an_unknown_memory_is_refused_at_once_and_later():
    blocks = [ReversibleBlock(1, [], {})]
    with pytest.raises(UserError, match="not known: 'reversible-exact'") as caught:
        ReversibleChain(blocks, "reversible-exact")
    assert "store, recompute, reversible" in str(caught.value)
    assert "set fixed_point_bits" in str(caught.value)
    chain = ReversibleChain(blocks, "store")
    with pytest.raises(UserError, match="not known: 'checkpoint'"):
        chain.memory = "checkpoint"
    assert chain.memory == "store"


def test_shapes_and_counts_of_streams_are_checked():
    block = ReversibleBlock(2, [Step("f", (Part(0),), Part(1))], {"f": nn.Linear(4, 3)})
    with pytest.raises(UserError, match="another shape"):
        block(torch.zeros(2, 4), torch.zeros(2, 4))
    for mode in MODES:
        chain = ReversibleChain([ReversibleBlock(2, [], {}), block], mode)
        with pytest.raises(UserError, match=r"(?s)block 1, step 0 \(f\).*\(2, 3\).*\(2, 4\)"):
            chain(torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(UserError, match="2 streams got only 1"):
        block(torch.zeros(2, 4))
    with pytest.raises(UserError, match="block 1 takes 2 streams, but block 0 returns 1"):
        ReversibleChain([ReversibleBlock(1, [], {}), block])
