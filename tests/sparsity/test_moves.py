"""Moves of one mask against plain loops over its blocks; counts that never change."""

from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from feldspar.sparsity.moves import block_sums, drop_and_grow, prune, random_scores
from feldspar.sparsity.schedule import MaskSchedule

Block = tuple[int, int]


def in_blocks(values: Tensor, block: Block) -> list[float]:
    """The sum of absolute values of each block, by loops."""
    rows, columns = block
    array = values.double().numpy()
    return [
        float(np.abs(array[i : i + rows, j : j + columns]).sum())
        for i in range(0, array.shape[0], rows)
        for j in range(0, array.shape[1], columns)
    ]


def reference(
    mask: Tensor, weight: Tensor, gradient: Tensor, fraction: float, block: Block, regrow: bool
) -> tuple[Tensor, set[int], set[int]]:
    """A step of RigL by sorting: the new mask, and the blocks that were dropped and grown."""
    kept = {i for i, value in enumerate(in_blocks(mask, block)) if value}
    sizes, gradients = in_blocks(weight, block), in_blocks(gradient, block)
    count = floor(fraction * len(kept))
    dropped = set(sorted(kept, key=lambda i: (sizes[i], i))[:count])
    candidates = set(range(len(sizes))) - (kept - dropped if regrow else kept)
    if len(candidates) < count:
        count = len(candidates)
        dropped = set(sorted(kept, key=lambda i: (sizes[i], i))[:count])
    grown = set(sorted(candidates, key=lambda i: (-gradients[i], i))[:count])
    new = torch.zeros_like(mask)
    rows, columns = block
    width = mask.shape[1] // columns
    for i in (kept - dropped) | grown:
        row, column = i // width * rows, i % width * columns
        new[row : row + rows, column : column + columns] = True
    return new, dropped, grown


def some_mask(chance: torch.Generator, shape: tuple[int, int], block: Block) -> Tensor:
    blocks = torch.rand(shape[0] // block[0], shape[1] // block[1], generator=chance) < 0.4
    return blocks.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)


@given(
    seed=st.integers(0, 2**32),
    block=st.sampled_from([(1, 1), (4, 1), (1, 4), (2, 2)]),
    fraction=st.floats(0, 1),
    regrow=st.booleans(),
    levels=st.sampled_from([1, 3, 1000]),
)
def test_a_move_is_that_of_plain_loops(
    seed: int, block: Block, fraction: float, regrow: bool, levels: int
) -> None:
    chance = torch.Generator().manual_seed(seed)
    shape = (8, 12)
    mask = some_mask(chance, shape, block)
    # Few levels give many equal scores; whole numbers have exact sums.
    weight = torch.randint(-levels, levels + 1, shape, generator=chance).float() * mask
    gradient = torch.randint(-levels, levels + 1, shape, generator=chance).float()
    scores = block_sums(gradient, block)
    move = drop_and_grow(mask, weight, scores, fraction, block, regrow)
    new, dropped, grown = reference(mask, weight, gradient, fraction, block, regrow)
    size = block[0] * block[1]
    assert torch.equal(move.mask, new)
    assert (move.dropped, move.grown) == (size * len(dropped), size * len(grown))
    assert int(move.changed.sum()) == size * len(dropped | grown)
    assert int(move.mask.sum()) == int(mask.sum())
    assert bool(move.changed[mask != move.mask].all())


def test_a_step_of_rigl_by_hand() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0]]).bool()
    weight = torch.tensor([[0.1, -0.2, 0.0, 0.0], [0.3, -0.4, 0.0, 0.0]])
    gradient = torch.tensor([[9.0, 0.0, 1.0, -2.0], [0.0, 0.0, 3.0, 0.0]])
    # floor(0.5 * 4) = 2: 0.1 and -0.2 go, and the gradients 9 and 3 come.
    scores = gradient.abs().double()
    move = drop_and_grow(mask, weight, scores, 0.5)
    assert move.mask.tolist() == [[True, False, False, False], [True, True, True, False]]
    assert move.changed.tolist() == [[True, True, False, False], [False, False, True, False]]
    move = drop_and_grow(mask, weight, scores, 0.5, allow_regrow=False)
    assert move.mask.tolist() == [[False, False, False, True], [True, True, True, False]]


@pytest.mark.parametrize("gradients", [0.0, 1.0])
def test_counts_stay_over_100_moves(gradients: float) -> None:
    chance = torch.Generator().manual_seed(1)
    mask = torch.rand(64, 48, generator=chance) < 0.1
    kept, schedule = int(mask.sum()), MaskSchedule(1, 0, 101)
    weight = torch.randn(64, 48, generator=chance) * mask
    for step in range(1, 101):
        gradient = gradients * torch.randn(64, 48, generator=chance)
        fraction = schedule.drop_fraction(0.3, step)
        move = drop_and_grow(mask, weight, gradient.abs().double(), fraction)
        mask, weight = move.mask, weight.masked_fill(move.changed, 0)
        assert int(mask.sum()) == kept
        assert move.dropped == move.grown == floor(fraction * kept)
        assert not weight[~mask].any()


def test_pruning_keeps_the_largest() -> None:
    weight = torch.tensor([[1.0, -4.0, 2.0], [3.0, -2.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    move = prune(mask, weight, 3)
    assert move.mask.tolist() == [[False, True, False], [True, True, False]], "of equals the first"
    assert (move.dropped, move.grown) == (2, 0)
    assert torch.equal(move.changed, mask & ~move.mask)
    assert torch.equal(prune(move.mask, weight, 5).mask, move.mask), "nothing comes back"
    blocks = prune(torch.ones(2, 3).bool(), weight, 1, (2, 1))
    assert blocks.mask.tolist() == [[False, True, False]] * 2


def test_random_scores_have_a_stream_of_their_own() -> None:
    scores = random_scores((8, 6), (4, 1), 3, "a", 10)
    assert scores.shape == (2, 6)
    assert torch.equal(scores, random_scores((8, 6), (4, 1), 3, "a", 10))
    for seed, name, position in ((4, "a", 10), (3, "b", 10), (3, "a", 11)):
        assert not torch.equal(scores, random_scores((8, 6), (4, 1), seed, name, position))


def test_set_grows_every_free_entry_equally_often() -> None:
    mask = torch.zeros(4, 10).bool()
    mask[0] = True
    weight, times = mask.float(), torch.zeros(4, 10)
    for position in range(2000):
        scores = random_scores((4, 10), (1, 1), 0, "w", position)
        times += drop_and_grow(mask, weight, scores, 0.5, allow_regrow=False).mask
    # 5 of 30 entries each time: 333 times each, with a standard deviation of 16.7.
    assert bool(((times[1:] - 2000 / 6).abs() < 5 * 16.7).all())
