"""Positions at which masks move, the falling share of drops, and the rising share of zeros."""

import pytest

from feldspar.sparsity.schedule import MaskSchedule


def moves(schedule: MaskSchedule, length: int, step: int) -> list[int]:
    """The positions after the steps that move masks."""
    return [
        before + step for before in range(0, length, step) if schedule.is_due(before, before + step)
    ]


def test_masks_move_between_begin_and_end_at_multiples() -> None:
    assert moves(MaskSchedule(30, 0, 90), 120, 10) == [30, 60], "the end itself is excluded"
    assert moves(MaskSchedule(30, 30, 120), 120, 10) == [60, 90], "and so is the begin"
    assert moves(MaskSchedule(25, 0, 100), 100, 10) == [30, 50, 80], "a multiple lies in the step"
    assert moves(MaskSchedule(1, 20, 60), 100, 10) == [30, 40, 50]


def test_pruning_moves_once_more_at_the_end() -> None:
    assert moves(MaskSchedule(30, 0, 90, prunes=True), 120, 10) == [30, 60, 90]
    assert moves(MaskSchedule(30, 0, 75, prunes=True), 120, 10) == [30, 60, 80]
    assert moves(MaskSchedule(1000, 0, 120, prunes=True), 120, 10) == [120]


def test_the_share_of_drops_falls_by_a_cosine() -> None:
    schedule = MaskSchedule(1, 100, 300)
    assert schedule.drop_fraction(0.3, 100) == 0.3
    assert schedule.drop_fraction(0.3, 200) == pytest.approx(0.15, rel=1e-15)
    assert schedule.drop_fraction(0.3, 150) == pytest.approx(0.15 * (1 + 0.5**0.5), rel=1e-15)
    assert schedule.drop_fraction(0.3, 300) == 0


def test_the_share_of_zeros_rises_by_a_cube() -> None:
    schedule = MaskSchedule(1, 0, 10, prunes=True)
    shares = [schedule.pruned_share(0.1, 0.9, t) for t in (0, 5, 10, 20)]
    assert shares == pytest.approx([0.1, 0.9 - 0.8 / 8, 0.9, 0.9], rel=1e-15)
    assert shares[2] == 0.9, "exactly"
