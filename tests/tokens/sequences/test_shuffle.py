"""The permutation of windows: a bijection for every size, in blocks that respect epochs."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from feldspar.tokens.sequences.shuffle import BLOCK, WindowOrder, permuted


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1))
def test_a_bijection_of_any_size(size: int, key: int) -> None:
    assert sorted(permuted(index, size, key) for index in range(size)) == list(range(size))


def test_keys_give_other_orders() -> None:
    orders = {tuple(permuted(index, 50, key) for index in range(50)) for key in range(40)}
    assert len(orders) == 40


def test_displacement_is_that_of_a_uniform_permutation() -> None:
    size = 4096
    moved = sum(abs(permuted(index, size, 7) - index) for index in range(size)) / size
    # A uniform permutation moves by size / 3 on average; its deviation here is under 1 %.
    assert abs(moved - size / 3) < 0.05 * size


def equal_epochs(first: int, per_epoch: int) -> Callable[[int], tuple[int, int]]:
    """The rest of an epoch with ``first`` windows, then epochs of ``per_epoch``."""
    return lambda number: (
        (0, first)
        if number < first
        else (first + (number - first) // per_epoch * per_epoch, per_epoch)
    )


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 200), st.integers(0, 9))
def test_each_epoch_keeps_its_windows(first: int, per_epoch: int, total: int, seed: int) -> None:
    order = WindowOrder(seed, "web", 0, equal_epochs(first, per_epoch), total)
    places = [order.place(number) for number in range(total)]
    assert sorted(places) == list(range(total))
    for start in [0, *range(first, total, per_epoch)]:
        stop = min(total, first if start < first else start + per_epoch)
        assert sorted(places[start:stop]) == list(range(start, stop))


def test_blocks_stay_apart() -> None:
    order = WindowOrder(1, "web", 0, equal_epochs(3 * BLOCK, 3 * BLOCK), 2 * BLOCK + 5)
    assert {order.place(n) // BLOCK for n in range(BLOCK, 2 * BLOCK)} == {1}
    assert sorted(order.place(n) for n in range(2 * BLOCK, 2 * BLOCK + 5)) == list(
        range(2 * BLOCK, 2 * BLOCK + 5)
    )
