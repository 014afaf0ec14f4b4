"""Drawn masks: exact counts, uniform, dependent on seed and name alone; applied to models."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from feldspar.core.errors import RunError
from feldspar.core.rows import FanIn, ParameterRow, Role
from feldspar.recipe.sections.sparsity import StaticSparsity
from feldspar.sparsity.density import kept_counts
from feldspar.sparsity.masks import Masks, draw_mask, draw_pattern


def rows(*names: str) -> list[ParameterRow]:
    return [ParameterRow(name, Role.HIDDEN, (24, 16), FanIn.D_MODEL, True) for name in names]


def static(sparsity: float, **changes: object) -> StaticSparsity:
    values = {"type": "static", "sparsity": sparsity, "targets": ["*"]} | changes
    return StaticSparsity.model_validate(values)


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0, 0.999), st.integers(0, 2**40))
def test_exactly_as_many_as_asked_for(n_out: int, n_in: int, sparsity: float, seed: int) -> None:
    mask = draw_mask("some.weight", (n_out, n_in), sparsity, seed)
    assert mask.dtype is torch.bool and mask.shape == (n_out, n_in)
    entries = n_out * n_in
    assert int(mask.sum()) == entries - math.floor(sparsity * entries + 0.5)


def test_only_seed_and_name_matter() -> None:
    few = Masks.draw(static(0.75), rows("a.x", "a.y"), seed=3)
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    many = Masks.draw(static(0.75), rows("a.z", "a.y", "a.w", "a.x"), seed=3)
    assert torch.equal(torch.random.get_rng_state(), state), "no global seed is used"
    for name in ("a.x", "a.y"):
        assert torch.equal(few.tensors[name], many.tensors[name])
    assert not torch.equal(few.tensors["a.x"], few.tensors["a.y"])
    other = Masks.draw(static(0.75), rows("a.x"), seed=4)
    assert not torch.equal(few.tensors["a.x"], other.tensors["a.x"])
    assert few.density("a.x") == 0.25 and few.density("a.absent") == 1


@pytest.mark.parametrize("changes", [{}, {"pattern": "1:4"}, {"block": [4, 2]}])
def test_masks_may_have_a_seed_of_their_own(changes: dict[str, object]) -> None:
    recipes = Masks.draw(static(0.75, **changes), rows("a.x"), seed=3)
    own = Masks.draw(static(0.75, **changes, seed=3), rows("a.x"), seed=8)
    assert torch.equal(own.tensors["a.x"], recipes.tensors["a.x"])
    assert own.seed == recipes.seed == 3
    other = Masks.draw(static(0.75, **changes, seed=0), rows("a.x"), seed=3)
    assert not torch.equal(other.tensors["a.x"], recipes.tensors["a.x"])


def test_every_entry_is_as_likely_as_any_other() -> None:
    draws, side, kept = 4000, 8, 0.25
    masks = torch.stack([draw_mask(f"w{n}", (side, side), 1 - kept, 0) for n in range(draws)])
    flat = masks.flatten(1).double()
    cells = side * side
    counts = flat.sum(0)
    # Chi-square of 63 degrees of freedom: mean 63, standard deviation 11.2.
    deviations = (counts - draws * kept) ** 2 / (draws * kept * (1 - kept))
    assert 30 < deviations.sum().item() * (cells - 1) / cells < 110
    together = (flat[:, :-1] * flat[:, 1:]).sum(0) / draws
    # Two entries of a set of fixed size: k (k - 1) / (n (n - 1)), a little less than kept^2.
    expected = kept * (kept * cells - 1) / (cells - 1)
    error = math.sqrt(expected * (1 - expected) / draws / (cells - 1))
    assert together.mean().item() == pytest.approx(expected, abs=4 * error)


def test_independent_entries_on_request() -> None:
    counts = [
        int(draw_mask(f"w{n}", (50, 40), 0.75, 0, "bernoulli").sum()) - 500 for n in range(200)
    ]
    deviation = math.sqrt(2000 * 0.75 * 0.25)
    assert len(set(counts)) > 20
    assert abs(sum(counts) / 200) < 4 * deviation / math.sqrt(200)
    measured = math.sqrt(sum(count**2 for count in counts) / 200)
    assert measured == pytest.approx(deviation, rel=0.2)  # 4 standard errors of 200 draws


@given(
    st.integers(0, 12),
    st.integers(0, 12),
    st.integers(1, 5),
    st.integers(1, 5),
    st.floats(0, 0.999),
    st.sampled_from(["exact", "bernoulli"]),
)
def test_blocks_are_drawn_as_single_entries_are(
    rows: int, columns: int, high: int, wide: int, sparsity: float, sampling: str
) -> None:
    single = draw_mask("some.weight", (rows, columns), sparsity, 5, sampling)
    shape = (rows * high, columns * wide)
    mask = draw_mask("some.weight", shape, sparsity, 5, sampling, (high, wide))
    assert mask.shape == shape and mask.is_contiguous()
    spread = np.kron(single.numpy(), np.ones((high, wide), dtype=bool))
    assert np.array_equal(mask.numpy(), spread.reshape(shape))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 40), st.data())
def test_each_group_of_a_pattern_keeps_as_many(
    n_out: int, groups: int, group: int, data: st.DataObject
) -> None:
    kept = data.draw(st.integers(1, group - 1))
    mask = draw_pattern("some.weight", (n_out, groups * group), kept, group, 7)
    assert mask.dtype is torch.bool and mask.is_contiguous()
    assert bool((mask.view(n_out, groups, group).sum(-1) == kept).all())


def test_every_pattern_is_as_likely_as_any_other() -> None:
    groups = draw_pattern("w", (600, 400), 2, 4, 0).view(-1, 4).long()
    counts = torch.bincount(groups @ torch.tensor([8, 4, 2, 1]))
    counts = counts[counts > 0]
    assert len(counts) == 6, "2 of 4 can be chosen in 6 ways"
    # Chi-square of 5 degrees of freedom: 25.7 is exceeded once in 10,000 draws.
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 25.7


@pytest.mark.parametrize(
    "changes",
    [
        {"block": [4, 1]},
        {"block": [3, 8], "distribution": "erk"},
        {"distribution": "er", "per_tensor": {"a.y": 0.25}},
        {"sparsity": 0.5, "pattern": "2:4"},
    ],
)
def test_masks_keep_what_was_counted_and_depend_on_seed_and_name(changes: dict) -> None:
    settings = static(changes.pop("sparsity", 0.6), **changes)
    few, many = rows("a.x", "a.y"), rows("a.y", "a.x")
    masks = Masks.draw(settings, few, seed=3)
    assert {name: int(mask.sum()) for name, mask in masks.tensors.items()} == kept_counts(
        settings, few
    )
    again = Masks.draw(settings, many, seed=3)
    assert all(torch.equal(again.tensors[name], mask) for name, mask in masks.tensors.items())
    assert not torch.equal(masks.tensors["a.x"], masks.tensors["a.y"])
    other = Masks.draw(settings, few, seed=4)
    assert not torch.equal(other.tensors["a.x"], masks.tensors["a.x"])


def test_768_of_3072_entries_are_kept() -> None:
    assert int(draw_mask("w", (64, 48), 0.75, 0).sum()) == 768
    assert int(draw_mask("w", (64, 48), 0.75, 0, block=(4, 1)).sum()) == 768


class TwoMatrices(nn.Module):
    """One masked matrix, one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.masked = nn.Parameter(-torch.ones(24, 16))
        self.dense = nn.Parameter(-torch.ones(24, 16))


def test_weights_and_gradients() -> None:
    model, masks = TwoMatrices(), Masks.draw(static(0.75), rows("masked"), seed=0)
    masks.apply_to_gradients(model)  # nothing to do before the first backward pass
    masks.apply_to_weights(model)
    mask = masks.tensors["masked"]
    assert int((model.masked == -1).sum()) == int(mask.sum()) == 96
    assert not torch.signbit(model.masked[~mask]).any(), "no negative zeros"
    assert bool((model.dense == -1).all())
    (2 * model.masked + 3 * model.dense).sum().backward()
    masks.apply_to_gradients(model)
    assert model.masked.grad is not None and model.dense.grad is not None
    assert torch.equal(model.masked.grad, 2.0 * mask)
    assert bool((model.dense.grad == 3).all())


def test_a_gradient_that_is_not_finite_is_not_hidden() -> None:
    model, masks = TwoMatrices(), Masks.draw(static(0.75), rows("masked"), seed=0)
    model.masked.grad = torch.full((24, 16), torch.inf)
    masks.apply_to_gradients(model)
    assert not torch.isfinite(model.masked.grad).any(1).all()
    assert model.masked.grad[~masks.tensors["masked"]].isnan().all()


def test_a_weight_that_should_be_zero_is_named() -> None:
    model, masks = TwoMatrices(), Masks.draw(static(0.75), rows("masked"), seed=0)
    masks.apply_to_weights(model)
    masks.require_zeros(dict(model.named_parameters()), "here")
    with torch.no_grad():
        model.masked[~masks.tensors["masked"]] = torch.nan
    with pytest.raises(
        RunError, match="masked has 288 nonzero weights where its mask requires zeros"
    ):
        masks.require_zeros(dict(model.named_parameters()), "here")
