"""Intervals over documents, beside the formula of a ratio's standard error."""

import numpy as np
import pytest

from feldspar.core.bootstrap import ratio_interval


def test_the_interval_is_that_of_the_normal_approximation() -> None:
    """With 400 documents the ratio of sums is nearly normal, with the error of the delta method."""
    generator = np.random.default_rng(1)
    sizes = generator.integers(50, 500, 400).astype(float)
    nats = sizes * generator.normal(1.0, 0.2, 400)
    ratio = nats.sum() / sizes.sum()
    error = np.sqrt(((nats - ratio * sizes) ** 2).sum()) / sizes.sum()
    low, high = ratio_interval(list(nats), list(sizes))
    # The quantiles of 10,000 draws have a standard error of about 0.027 standard deviations.
    assert low == pytest.approx(ratio - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(ratio + 1.96 * error, abs=0.15 * error)


def test_one_document_has_no_spread() -> None:
    assert ratio_interval([3.0], [2.0]) == (1.5, 1.5)


def test_the_same_seed_gives_the_same_interval() -> None:
    assert ratio_interval([1.0, 2.0, 4.0], [1.0, 1.0, 1.0]) == ratio_interval(
        [1.0, 2.0, 4.0], [1.0, 1.0, 1.0]
    )


@pytest.mark.parametrize(("over", "under"), [([1.0], [1.0, 2.0]), ([], [])])
def test_documents_must_match(over: list[float], under: list[float]) -> None:
    with pytest.raises(ValueError, match="one of each"):
        ratio_interval(over, under)
