"""The fused head and loss against autograd through full logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from feldspar.model import cross_entropy
from feldspar.model.cross_entropy import linear_cross_entropy, linear_token_losses
from tests.rounding import assert_within_rounding


def problem(n_rows, n_vocab, d=6, seed=0, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n_rows, d, generator=generator, dtype=torch.float64) * scale
    weight = torch.randn(n_vocab, d, generator=generator, dtype=torch.float64)
    labels = torch.randint(n_vocab, (n_rows,), generator=generator)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), labels


@settings(deadline=None, max_examples=40)
@given(
    n_rows=st.integers(1, 23),
    n_vocab=st.integers(2, 17),
    chunk_rows=st.integers(1, 9),
    multiplier=st.sampled_from([1.0, 0.222, 7.5]),
    ignored=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_value_and_gradients(n_rows, n_vocab, chunk_rows, multiplier, ignored, seed):
    hidden, weight, labels = problem(n_rows, n_vocab, seed=seed)
    drawn = torch.rand(n_rows, generator=torch.Generator().manual_seed(seed))
    labels[drawn < ignored] = -100
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "MINIMUM_LOGITS_ROWS", chunk_rows)
        patch.setattr(cross_entropy, "LOGITS_CHUNK_BYTES", {"cpu": 1})
        loss, valid = linear_cross_entropy(hidden, weight, labels, multiplier)
        gradients = torch.autograd.grad(loss * 0.37, [hidden, weight])
    plain = F.cross_entropy(multiplier * hidden @ weight.T, labels, reduction="sum")
    expected = torch.autograd.grad(plain * 0.37, [hidden, weight])
    assert valid.item() == int((labels != -100).sum())
    torch.testing.assert_close(loss, plain)
    assert_within_rounding(gradients, expected, n_rows + n_vocab + 6)


def test_padding_rows_take_no_probability_and_no_gradient():
    hidden, weight, labels = problem(9, 12)
    labels %= 10
    loss, _ = linear_cross_entropy(hidden, weight, labels, n_real_vocab=10)
    (gradient,) = torch.autograd.grad(loss, [weight])
    plain = F.cross_entropy(hidden @ weight[:10].T, labels, reduction="sum")
    (expected,) = torch.autograd.grad(plain, [weight])
    torch.testing.assert_close(loss, plain)
    assert_within_rounding(gradient, expected, 9 + 12 + 6)
    assert (gradient[10:] == 0).all()


def test_huge_logits_neither_overflow_nor_lose_the_loss():
    hidden, weight, labels = problem(20, 11, dtype=torch.float32, scale=1e4)
    loss, _ = linear_cross_entropy(hidden, weight, labels)
    plain = F.cross_entropy((hidden.double() @ weight.double().T), labels, reduction="sum")
    assert torch.isfinite(loss)
    assert_within_rounding(loss, plain, 20 + 11 + 6)


def test_token_losses_need_no_gradient_and_keep_the_shape():
    hidden, weight, labels = problem(12, 7)
    labels[4] = -100
    losses = linear_token_losses(hidden.view(3, 4, -1), weight, labels.view(3, 4), 0.5)
    expected = F.cross_entropy(0.5 * hidden @ weight.T, labels, reduction="none")
    torch.testing.assert_close(losses, expected.view(3, 4).detach())


def test_autocast_computes_in_bfloat16_and_returns_float32():
    hidden, weight, labels = problem(40, 33, d=64, dtype=torch.float32, scale=0.3)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = linear_cross_entropy(hidden, weight, labels)
    gradients = torch.autograd.grad(loss, [hidden, weight])
    plain = F.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    expected = torch.autograd.grad(plain, [hidden, weight])
    assert loss.dtype == torch.float32 and gradients[1].dtype == torch.float32
    # bfloat16 keeps 8 bits: half a percent of logits of size 2, averaged over 40 tokens
    torch.testing.assert_close(loss, plain, rtol=5e-3, atol=0)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert (ours - theirs).norm() <= 0.02 * theirs.norm()


def test_a_second_backward_pass_is_refused():
    hidden, weight, labels = problem(5, 7)
    loss, _ = linear_cross_entropy(hidden, weight, labels)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()


class Watcher:
    """Keeps what it sees."""

    def __init__(self):
        self.seen, self.scaled = [], None

    def see(self, example, gradient):
        assert example == len(self.seen)
        self.seen.append(gradient.clone())

    def scale(self, factor, gradient):
        self.scaled = (float(factor), gradient.clone())


@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
def test_an_observer_sees_the_share_of_each_example(chunk_rows, monkeypatch):
    monkeypatch.setattr(cross_entropy, "MINIMUM_LOGITS_ROWS", chunk_rows)
    monkeypatch.setattr(cross_entropy, "LOGITS_CHUNK_BYTES", {"cpu": 1})
    hidden, weight, labels = problem(15, 11)
    labels = labels % 10
    labels[[0, 7]] = -100
    hidden, labels = hidden.view(3, 5, -1), labels.view(3, 5)
    watcher = Watcher()
    arguments = (2.5, 10)
    loss, _ = linear_cross_entropy(hidden, weight, labels, *arguments, watcher)
    gradients = torch.autograd.grad(loss * 0.37, [hidden, weight])
    plain, _ = linear_cross_entropy(hidden, weight, labels, *arguments)
    expected = torch.autograd.grad(plain * 0.37, [hidden, weight])
    torch.testing.assert_close(loss, plain)
    assert_within_rounding(gradients, expected, 15 + 11 + 6)
    assert watcher.scaled[0] == 0.37
    torch.testing.assert_close(watcher.scaled[1], expected[1])
    for one, seen in enumerate(watcher.seen):
        alone, _ = linear_cross_entropy(hidden[one], weight, labels[one], *arguments)
        (share,) = torch.autograd.grad(alone, [weight])
        torch.testing.assert_close(seen, share[:10])
