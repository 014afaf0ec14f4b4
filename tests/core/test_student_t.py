"""Student's t against printed tables, and what it makes of few values."""

import math

import pytest

from feldspar.core.student_t import half_width, t_quantile, unpaired_half_width

TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 10: 2.2281, 30: 2.0423}
"""Degrees of freedom to the t of a 95 % interval, as printed in any table."""


@pytest.mark.parametrize("degrees", TABLE)
def test_quantiles_are_the_printed_ones(degrees: int) -> None:
    assert t_quantile(degrees) == pytest.approx(TABLE[degrees], abs=5e-5)


def test_other_levels_and_many_degrees() -> None:
    assert t_quantile(2, 0.9) == pytest.approx(2.9200, abs=5e-5)
    assert t_quantile(7, 0.99) == pytest.approx(3.4995, abs=5e-5)
    assert t_quantile(10_000) == pytest.approx(1.9602, abs=5e-5)


def test_half_of_the_interval_of_a_mean() -> None:
    assert half_width([1.0]) is None
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert half_width([2.0, 2.0]) == 0.0
    assert half_width([1.0, math.inf]) == math.inf


def test_groups_that_are_not_paired() -> None:
    assert unpaired_half_width([1.0], [2.0]) is None
    found = unpaired_half_width([1.0, 3.0], [5.0, 7.0])
    assert found == pytest.approx(4.3027 * math.sqrt(2), rel=1e-4)
