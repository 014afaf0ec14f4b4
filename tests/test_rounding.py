"""The bound on rounding holds for sums in any order, and is not far above what they show."""

import pytest
import torch

from tests.rounding import assert_within_rounding, rounding


@pytest.mark.parametrize("terms", [10, 1000, 20_000])
@pytest.mark.parametrize("signs", ["one", "both"])
def test_orders_of_a_sum_differ_by_less_than_the_bound_but_not_by_much_less(
    terms: int, signs: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(200, terms, generator=generator)
    values = values.abs() if signs == "one" else values
    exact = values.double().sum(1)
    one_by_one = torch.zeros(200)
    for column in values.unbind(1):
        one_by_one += column
    assert_within_rounding(one_by_one, exact, terms)
    scale = float(exact.abs().max())
    assert (one_by_one - exact).abs().max() > rounding(terms, torch.float32, scale) / 200


def test_a_lost_term_is_seen() -> None:
    values = torch.rand(64, 500, generator=torch.Generator().manual_seed(0))
    with pytest.raises(AssertionError):
        assert_within_rounding(values[:, 1:].sum(1), values.sum(1), 500)
    with pytest.raises(AssertionError):
        assert_within_rounding(values.bfloat16().float().sum(1), values.sum(1), 500)
