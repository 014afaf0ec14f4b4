"""The order of sources: the known answers, and brute force."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import InternalError
from feldspar.tokens.sequences.mixture import MixtureSampler, exact

DC6 = [0.522, 0.267, 0.052, 0.042, 0.046, 0.038, 0.033]
"""SlimPajama-DC (2309.10818), DC-6."""


def by_sorting(weights: list[Fraction], samples: int) -> list[tuple[int, int]]:
    """(source, k) of the first samples, from all due times."""
    total = sum(weights)
    events = [
        ((2 * k + 1) * total / (2 * weight), source, k)
        for source, weight in enumerate(weights)
        for k in range(samples)
    ]
    return [(source, k) for _, source, k in sorted(events)[:samples]]


def test_first_twenty_of_dc6() -> None:
    sources, _ = MixtureSampler(DC6).sources_of(0, 20)
    assert sources.tolist() == [0, 1, 0, 0, 1, 0, 0, 1, 2, 0, 4, 3, 0, 1, 5, 0, 6, 0, 1, 0]


def test_five_three_two() -> None:
    sampler = MixtureSampler([0.5, 0.3, 0.2])
    assert sampler.weights == (5, 3, 2)
    assert sampler.sources_of(0, 20)[0].tolist() == [0, 1, 2, 0, 0, 1, 0, 2, 1, 0] * 2


@pytest.mark.parametrize(
    ("probabilities", "largest"), [(DC6, 1.35), ([0.5, 0.5], 0.5), ([0.9, 0.1], 0.5)]
)
def test_deviation_from_the_shares(probabilities: list[float], largest: float) -> None:
    sampler = MixtureSampler(probabilities)
    sources, _ = sampler.sources_of(0, 20_000)
    n = np.arange(1, 20_001)
    deviations = [
        np.abs(np.cumsum(sources == s) - n * float(exact(p))).max()
        for s, p in enumerate(probabilities)
    ]
    assert max(deviations) == pytest.approx(largest, abs=0.005)


def test_decimals_are_taken_as_written() -> None:
    assert exact(0.1) == Fraction(1, 10)
    assert exact(Decimal("0.267")) == Fraction(267, 1000)
    assert MixtureSampler([0.1, 0.2, 0.7]).period == 10


shares = st.lists(
    st.fractions(min_value=Fraction(1, 500), max_value=1, max_denominator=997),
    min_size=1,
    max_size=6,
)


@given(shares, st.integers(0, 150))
def test_equal_to_sorting_all_due_times(weights: list[Fraction], samples: int) -> None:
    sampler = MixtureSampler(weights)
    sources, ordinals = sampler.sources_of(0, samples)
    assert list(zip(sources.tolist(), ordinals.tolist(), strict=True)) == (
        by_sorting(weights, samples)
    )
    assert sampler.counts_before(samples) == np.bincount(sources, minlength=len(weights)).tolist()


@given(shares, st.integers(0, 10**15), st.integers(1, 40))
def test_anywhere_as_from_the_start(weights: list[Fraction], start: int, count: int) -> None:
    sampler = MixtureSampler(weights)
    sources, ordinals = sampler.sources_of(start, start + count)
    counts = sampler.counts_before(start)
    for source, k in zip(sources.tolist(), ordinals.tolist(), strict=True):
        assert k == counts[source]
        counts[source] += 1
    assert counts == sampler.counts_before(start + count)
    assert sum(counts) == start + count


@given(shares, st.integers(0, 10**12))
def test_counts_stay_within_the_derived_bound(weights: list[Fraction], n: int) -> None:
    sampler = MixtureSampler(weights)
    for count, weight in zip(sampler.counts_before(n), sampler.weights, strict=True):
        share = Fraction(weight, sampler.period)
        assert abs(count - n * share) <= Fraction(1, 2) + share * len(weights) / 2


def test_weights_too_large_for_machine_integers() -> None:
    weights = [Fraction(w) for w in (123456789123, 987654321987, 555555555556, 7777777)]
    sampler = MixtureSampler(weights)
    sources, ordinals = sampler.sources_of(0, 400)
    assert list(zip(sources.tolist(), ordinals.tolist(), strict=True)) == by_sorting(weights, 400)


def test_a_source_without_share_is_refused() -> None:
    with pytest.raises(InternalError):
        MixtureSampler([1.0, 0.0])
