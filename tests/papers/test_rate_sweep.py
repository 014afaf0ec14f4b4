"""Where the best rate lies, how far it moved, and what keeping the base's costs."""

import math

import pytest

from feldspar.papers.kit.rate_sweep import Cell, RateSweep, octaves, percent, pooled_std

RATES = [2.0**exponent for exponent in range(-8, -3)]


def row(name: str, variant: float, best: float, losses: int = 1) -> list[Cell]:
    return [
        Cell(name, variant, rate, (2 + abs(math.log2(rate) - best),) * losses) for rate in RATES
    ]


SWEEP = RateSweep((*row("mup", 1, -7), *row("mup", 0.25, -5), *row("sp", 1, -6)), base=1)


def test_best_untuned_and_shift() -> None:
    assert SWEEP.best("mup", 0.25).rate == 2**-5
    assert SWEEP.shift("mup", 0.25) == 2 and SWEEP.shift("mup", 1) == 0
    assert SWEEP.untuned("mup", 0.25).loss == 4
    assert SWEEP.variants == [1, 0.25] and SWEEP.row("sp", 0.25) == []


def test_an_optimum_at_either_edge_is_told() -> None:
    edges = RateSweep((*row("mup", 1, -8), *row("mup", 0.5, -4), *row("mup", 0.25, -6)), base=1)
    found = [edges.is_edge("mup", variant) for variant in (1, 0.5, 0.25)]
    assert found == [True, True, False]
    assert octaves(4, True) == "at least +4 octaves (edge of the grid)"
    assert octaves(-1) == "-1 octave" and octaves(0, True) == "+0 octaves"


def test_a_run_that_diverged_is_never_the_best() -> None:
    cells = (Cell("sp", 1, 0.1, (math.inf, 1.0)), Cell("sp", 1, 0.2, (3.0, 3.0)))
    sweep = RateSweep(cells, base=1)
    assert sweep.best("sp", 1).rate == 0.2
    assert cells[0].relative_std is None
    assert percent(math.inf) == "diverged"


def test_spreads_over_seeds_are_pooled() -> None:
    spread = Cell("sp", 1, 0.1, (2.0, 2.2)).relative_std
    assert spread == pytest.approx(math.sqrt(0.02) / 2.1)
    assert pooled_std([spread, None, 0.0]) == pytest.approx(math.sqrt(0.02) / 2.1 / math.sqrt(2))
    assert pooled_std([None]) is None
