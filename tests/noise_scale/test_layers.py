"""Each kind of layer against torch.func, one example at a time, and the specification's numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from feldspar.core.errors import UserError
from feldspar.model.layers import LayerNorm as OurLayerNorm
from feldspar.model.layers import PositionEmbedding
from feldspar.model.layers import RMSNorm as OurRMSNorm
from feldspar.noise_scale.tracker import instrument
from tests.noise_scale.conftest import assert_norms, looped_norms, measure, vmapped_norms
from tests.noise_scale.test_products import A, indexed

DTYPES = [torch.float64, torch.float32]


def randomise(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64))
    return module


class PlainRMSNorm(nn.Module):
    """As Llama's: float32 inside, gain outside."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon = 1e-6

    def forward(self, hidden_states):
        wide = hidden_states.double()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * wide.to(hidden_states.dtype)


class OnePlusNorm(PlainRMSNorm):
    """As Gemma's: the gain is 1 + weight."""

    def forward(self, x):
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return x * (1 + self.weight)


class GatedNorm(PlainRMSNorm):
    """A second input, as Mamba's: not one tensor in, so not the rule for norms."""

    def forward(self, x, gate=None):
        return super().forward(x if gate is None else x * gate)


class MeanGainNorm(PlainRMSNorm):
    """Its gain does not act by broadcasting, so no copy a row may be made of it."""

    def forward(self, x):
        return F.normalize(x, dim=-1) * (self.weight / self.weight.mean())


class Gated(nn.Module):
    """A parameter of its own around layers, used twice."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.ones(()))
        self.inner = nn.Linear(5, 5)

    def forward(self, x):
        return self.gate * self.inner(x) + self.gate.sigmoid() * x


class AdapterLinear(nn.Linear):
    """A subclass whose forward pass is another: no rule for Linear may take it."""

    def forward(self, x):
        return F.linear(x, self.weight * self.weight, self.bias)


def transformers_conv1d():
    from transformers.pytorch_utils import Conv1D

    return Conv1D(4, 5)


FLOATS = [
    ("linear 2d", lambda: nn.Linear(5, 4), (3, 5), "LinearRule"),
    ("linear 3d", lambda: nn.Linear(5, 4), (3, 7, 5), "LinearRule"),
    ("linear 4d", lambda: nn.Linear(5, 4, bias=False), (3, 2, 7, 5), "LinearRule"),
    ("linear one position", lambda: nn.Linear(5, 4), (3, 1, 5), "LinearRule"),
    ("conv1d of transformers", transformers_conv1d, (3, 7, 5), "TransposedLinearRule"),
    ("layer norm", lambda: nn.LayerNorm(5), (3, 7, 5), "LayerNormRule"),
    ("layer norm 2d", lambda: nn.LayerNorm(5), (3, 5), "LayerNormRule"),
    ("layer norm, no bias", lambda: nn.LayerNorm(5, bias=False), (3, 7, 5), "LayerNormRule"),
    ("layer norm of two dims", lambda: nn.LayerNorm((7, 5)), (3, 2, 7, 5), "LayerNormRule"),
    ("layer norm, large", lambda: nn.LayerNorm(256), (2, 130, 256), "LayerNormRule"),
    ("our layer norm", lambda: OurLayerNorm(5), (3, 7, 5), "LayerNormRule"),
    ("rms norm", lambda: nn.RMSNorm(5), (3, 7, 5), "RMSNormRule"),
    ("rms norm of heads", lambda: nn.RMSNorm(5, eps=1e-6), (3, 7, 2, 5), "RMSNormRule"),
    ("our rms norm", lambda: OurRMSNorm(5, eps=1e-6), (3, 7, 5), "RMSNormRule"),
    ("rms norm as Llama's", lambda: PlainRMSNorm(5), (3, 7, 5), "ExampleLoopRule"),
    ("rms norm as Gemma's", lambda: OnePlusNorm(5), (3, 7, 5), "ExampleLoopRule"),
    ("norm with a gate", lambda: GatedNorm(5), (3, 7, 5), "ExampleLoopRule"),
    ("norm of another kind", lambda: MeanGainNorm(5), (3, 7, 5), "ExampleLoopRule"),
    ("group norm", lambda: nn.GroupNorm(2, 4), (3, 4, 6), "ExampleLoopRule"),
    ("convolution", lambda: nn.Conv2d(2, 3, 2), (3, 2, 5, 4), "ExampleLoopRule"),
    ("gate around a layer", Gated, (3, 7, 5), "ExampleLoopRule"),
    ("overridden linear", lambda: AdapterLinear(5, 4), (3, 7, 5), "ExampleLoopRule"),
    (
        "parametrized linear",
        lambda: parametrizations.weight_norm(nn.Linear(5, 4, bias=False)),
        (3, 7, 5),
        "ExampleLoopRule",
    ),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("make", "shape", "rule"), [case[1:] for case in FLOATS], ids=[case[0] for case in FLOATS]
)
def test_a_layer(make, shape, rule, dtype):
    module = randomise(make()).to(dtype)
    if our_rms := isinstance(module, OurRMSNorm):
        reference = randomise(nn.RMSNorm(5, eps=1e-6))  # its autograd function knows no vmap
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        out_shape = module(x).shape
    upstream = torch.randn(out_shape, generator=generator, dtype=torch.float64).to(dtype)
    expected = vmapped_norms((reference if our_rms else module).double(), upstream, x)
    module = module.to(dtype)
    tracker = instrument(module, "all")
    assert {found for names in tracker.rules.values() for found in names} == {rule}
    tracker.remove()
    x.requires_grad_()
    stats = measure(module, [lambda: (module(x) * upstream).sum()], shape[0])
    assert_norms(stats, expected, dtype)


@pytest.mark.parametrize("method", ["loop", "batched", "ghost"])
def test_every_way_of_a_linear_layer(method, monkeypatch):
    monkeypatch.setattr("feldspar.noise_scale.all_layers.linear.LinearRule.method", method)
    module = randomise(nn.Linear(5, 4)).double()
    x, upstream = torch.randn(3, 7, 5).double(), torch.randn(3, 7, 4).double()
    stats = measure(module, [lambda: (module(x) * upstream).sum()], 3)
    assert_norms(stats, vmapped_norms(module, upstream, x))


@pytest.mark.parametrize("padding", [None, 0])
@pytest.mark.parametrize("shape", [(3, 6), (3,), (3, 2, 4)], ids=str)
def test_embeddings_merge_repeated_ids(padding, shape):
    module = randomise(nn.Embedding(4, 5, padding_idx=padding)).double()
    ids = torch.randint(4, shape, generator=torch.Generator().manual_seed(1))
    upstream = torch.randn(*shape, 5).double()
    stats = measure(module, [lambda: (module(ids) * upstream).sum()], 3, shared=[])
    assert_norms(stats, vmapped_norms(module, upstream, ids))


@pytest.mark.parametrize("positions", [None, torch.tensor([[2, 0, 1]] * 3)])
def test_positions_that_add_themselves(positions):
    module = randomise(PositionEmbedding(6, 5)).double()
    x, upstream = torch.randn(3, 3, 5).double(), torch.randn(3, 3, 5).double()
    stats = measure(module, [lambda: (module(x, positions) * upstream).sum()], 3)
    expected = upstream.square().sum((1, 2))
    assert_norms(stats, {"weight": expected})


class WithPositions(nn.Module):
    """Learned positions as GPT-2 (1, T) and nanoGPT (T,) read them."""

    def __init__(self, leading, length):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(9, 5), nn.Embedding(length, 5)
        self.leading = leading

    def forward(self, ids):
        places = torch.arange(ids.shape[1])
        return self.tokens(ids) + self.positions(places[None] if self.leading else places)


@pytest.mark.parametrize("leading", [True, False])
@pytest.mark.parametrize("length", [3, 4])
def test_positions_shared_by_all_examples(leading, length):
    module = randomise(WithPositions(leading, length)).double()
    ids, upstream = torch.randint(9, (3, length)), torch.randn(3, length, 5).double()
    stats = measure(module, [lambda: (module(ids) * upstream).sum()], 3, shared=["positions"])
    assert_norms(stats, vmapped_norms(module, upstream, ids))


class WithClasses(nn.Module):
    """Token embeddings, and one vector an example that its class (B,) picks."""

    def __init__(self):
        super().__init__()
        self.tokens, self.classes = nn.Embedding(9, 5), nn.Embedding(4, 5)

    def forward(self, ids, classes):
        return self.tokens(ids) * self.classes(classes)[:, None]


class WithRelativePositions(nn.Module):
    """A table of relative positions (T, T) -> heads, as in T5: one for all examples."""

    def __init__(self):
        super().__init__()
        self.tokens, self.relative = nn.Embedding(9, 5), nn.Embedding(7, 2)

    def forward(self, ids):
        x, places = self.tokens(ids), torch.arange(ids.shape[1])
        bias = self.relative(places[:, None] - places + 3).movedim(-1, -3)  # (..., heads, T, T)
        return (bias.softmax(-1) @ x[:, None]).sum(1)


def test_classes_that_count_the_examples_are_no_positions():
    module = randomise(WithClasses()).double()
    ids, classes = torch.randint(9, (4, 3)), torch.arange(4)
    upstream = torch.randn(4, 3, 5).double()
    stats = measure(module, [lambda: (module(ids, classes) * upstream).sum()], 4, shared=[])
    expected = looped_norms(
        module, lambda i: (module(ids[i : i + 1], classes[i : i + 1]) * upstream[i]).sum(), 4
    )
    assert_norms(stats, expected)


@pytest.mark.parametrize("n_examples", [2, 3, 4])
def test_relative_positions_of_as_many_positions_as_examples(n_examples):
    module = randomise(WithRelativePositions()).double()
    ids, upstream = torch.randint(9, (n_examples, 3)), torch.randn(n_examples, 3, 5).double()
    stats = measure(
        module, [lambda: (module(ids) * upstream).sum()], n_examples, shared=["relative"]
    )
    expected = looped_norms(
        module, lambda i: (module(ids[i : i + 1]) * upstream[i]).sum(), n_examples
    )
    assert_norms(stats, expected)


UNDECLARED = {
    "one id an example or one a position": (WithClasses, (torch.arange(4),), 4, "classes"),
    "positions": (lambda: WithPositions(False, 4), (), 3, "positions"),
    "a square of ids": (WithRelativePositions, (), 3, "relative"),
}


@pytest.mark.parametrize("case", UNDECLARED)
def test_ids_that_could_mean_either_are_refused(case):
    make, others, n_examples, name = UNDECLARED[case]
    module = randomise(make())
    tracker = instrument(module, "all")
    ids = torch.randint(9, (n_examples, 3 if name == "relative" else 4))
    with tracker.microbatch():
        module.tokens(torch.randint(9, (n_examples, 5)))  # shows that its rows are examples
    with pytest.raises(UserError, match=name) as caught, tracker.microbatch():
        module(ids, *others)
    assert f"shared=['{name}']" in str(caught.value.do)


def test_square_tokens_alone_must_be_declared_unless_another_shape_was_seen():
    module = nn.Embedding(9, 5)
    square, wide = torch.randint(9, (3, 3)), torch.randint(9, (3, 4))
    tracker = instrument(module, "all")
    with pytest.raises(UserError, match=r"\(3, 3\)"), tracker.microbatch():
        module(square)
    for ids in (wide, square):
        with tracker.microbatch():
            module(ids).sum().backward()
    tracker.remove()
    with instrument(module, "all", shared=()).microbatch():
        module(square).sum().backward()


def test_shared_positions_first_need_the_number_of_examples():
    module = randomise(WithPositions(False, 3)).double()
    ids = torch.randint(9, (3, 3))

    def loss(of=slice(None)):
        return (module.positions(torch.arange(3)) + module.tokens(ids[of])).square().sum()

    tracker = instrument(module, "all", per_example=True, shared=["positions"])
    with pytest.raises(UserError, match=r"no layer has seen the batch"), tracker.microbatch():
        loss()
    module.zero_grad()
    with tracker.microbatch(n_examples=3):
        loss().backward()
    stats = tracker.finish(3)
    tracker.remove()
    assert_norms(stats, looped_norms(module, lambda i: loss(slice(i, i + 1)), 3))


def test_a_name_that_is_no_embedding_is_refused():
    with pytest.raises(UserError, match=r"'position'"):
        instrument(WithPositions(True, 3), "all", shared=["position"])


class Masked(nn.Module):
    """A weight of its own, and a mask (T, T) that all examples share."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x, mask):
        return mask @ (x * self.scale)


def test_a_shared_argument_that_becomes_as_long_as_the_batch_stays_shared():
    module = Masked().double()
    tracker = instrument(module, "all", per_example=True)
    for length in (4, 3):
        x, mask = torch.randn(3, length, 5).double(), torch.randn(length, length).double().tril()
        module.zero_grad()
        with tracker.microbatch():
            module(x, mask).square().sum().backward()
        found = tracker.finish(3).per_example["scale"]
        plain = Masked().double()
        expected = looped_norms(plain, lambda i: plain(x[i : i + 1], mask).square().sum(), 3)  # noqa: B023
        torch.testing.assert_close(found, expected["scale"])


def test_a_shared_argument_as_long_as_the_batch_from_the_start_is_refused():
    module = Masked()
    tracker = instrument(module, "all")
    mask = torch.randn(3, 3).tril()
    with pytest.raises(UserError, match=r"as long as the batch"), tracker.microbatch():
        module(torch.randn(3, 3, 5), mask)


@given(
    ids=st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=2, max_size=4),
    padding=st.sampled_from([None, 0, 5]),
    masked=st.booleans(),
)
def test_any_ids(ids, padding, masked):
    module = nn.Embedding(6, 3, padding_idx=padding).double()
    ids = torch.tensor(ids)
    generator = torch.Generator().manual_seed(0)
    upstream = torch.randn(*ids.shape, 3, generator=generator, dtype=torch.float64)
    mask = torch.rand(6, 3, generator=generator) < 0.5 if masked else torch.ones(6, 3).bool()
    stats = measure(
        module,
        [lambda: (module(ids) * upstream).sum()],
        len(ids),
        masks={"weight": mask},
        shared=[],
    )
    one_hot = F.one_hot(ids, 6).double()
    if padding is not None:
        one_hot[..., padding] = 0
    each = torch.einsum("btv,btd->bvd", one_hot, upstream) * mask
    torch.testing.assert_close(stats.per_example["weight"], each.square().sum((1, 2)))


IDS = torch.tensor([[0, 1, 0, 2], [2, 2, 2, 2], [1, 0, 2, 1]])
EMBEDDED = indexed((3, 4, 2), (2, 3, 5), 7, 3)


def test_the_golden_embedding():
    module = nn.Embedding(3, 2).double()
    stats = measure(module, [lambda: (module(IDS) * EMBEDDED).sum()], 3)
    assert stats.per_example["weight"].tolist() == [23, 1, 33]
    assert EMBEDDED.square().sum((1, 2)).tolist() == [37, 29, 29]  # unmerged: wrong


def test_the_golden_norms():
    upstream = indexed((3, 4, 3), (1, 2, 4), 5, 2)
    layer, rms = nn.LayerNorm(3, eps=1e-5).double(), nn.RMSNorm(3, eps=1e-6).double()
    stats = measure(layer, [lambda: (layer(A) * upstream).sum()], 3)
    gains = [62.590598, 25.939147, 29.141891]
    assert stats.per_example["weight"].tolist() == pytest.approx(gains, abs=1e-6)
    assert stats.per_example["bias"].tolist() == pytest.approx([2, 5, 9])
    stats = measure(rms, [lambda: (rms(A) * upstream).sum()], 3)
    gains = [77.745259, 13.771709, 21.765236]
    assert stats.per_example["weight"].tolist() == pytest.approx(gains, abs=1e-6)


class Tied(nn.Module):
    """An embedding, and a head with the same matrix fed by other hidden states."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids, hidden):
        return self.embedding(ids), self.head(hidden)


def test_the_golden_tied_matrix_with_its_cross_term():
    module = Tied().double()
    hidden = indexed((3, 4, 2), (1, 1, 1), 4, 1)
    errors = indexed((3, 4, 3), (2, 1, 3), 5, 2)

    def loss(embeds=True, heads=True):
        embedded, logits = module(IDS, hidden)
        return embeds * (embedded * EMBEDDED).sum() + heads * (logits * errors).sum()

    stats = measure(module, [loss], 3)
    assert stats.per_example["embedding.weight"].tolist() == [85, 106, 137]
    assert stats.groups == ("total", "embedding")
    assert stats["total"].m1 == stats["embedding"].m1 == 3 * (85 + 106 + 137)
    only_head = measure(module, [lambda: loss(embeds=False)], 3)
    assert only_head.per_example["embedding.weight"].tolist() == [82, 119, 66]


def test_the_backward_pass_of_either_half_may_come_first():
    module = Tied().double()
    hidden, errors = torch.randn(3, 4, 2).double(), torch.randn(3, 4, 3).double()

    def loss(example=slice(None)):
        logits = module.head(hidden[example])
        return (logits * errors[example]).sum() + module.embedding(IDS[example]).square().sum()

    stats = measure(module, [loss], 3)
    expected = looped_norms(module, lambda i: loss(slice(i, i + 1)), 3)
    assert_norms(stats, expected)
