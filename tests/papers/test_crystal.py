"""Crystal's claims on made-up figures, and the text of its arms: each claim can fail."""

import json
from pathlib import Path

import pytest

from feldspar.evaluate.tasks.filled_gaps import InfillingScore
from feldspar.papers.crystal.experiment import (
    ARMS,
    PAPER,
    PUBLISHED,
    SEEDS,
    Bits,
    bits_by_phase,
    curve_figure,
    filled_gaps_claim,
    last_phase_claim,
    mean_curve,
    order_claim,
    phase_claim,
    phase_table,
    reading_claim,
    trials,
)
from feldspar.papers.kit.claims import Claim, Verdict
from feldspar.papers.kit.paper import Scale, by_name, values_of
from feldspar.papers.kit.validation_curve import Validation, validation_curve
from feldspar.recipe.load import load_recipe
from tests.papers.conftest import finished, stated

CLAIMS = stated(PAPER)
WOBBLE = (0.0, 0.01, 0.02)


def bits(*phases: tuple[str, float, float]) -> Bits:
    """Bits per byte of language and code at the ends of phases, for three seeds."""
    return {
        name: {
            "language": [language + shift for shift in WOBBLE],
            "code": [code + shift for shift in WOBBLE],
        }
        for name, language, code in phases
    }


GOOD = bits(("language", 3.0, 3.5), ("code", 2.8, 2.4), ("application", 2.85, 2.3))


def verdicts(*claims: Claim) -> list[Verdict]:
    return [claim.verdict for claim in claims]


def test_phases_that_help_both_kinds_are_recognised() -> None:
    claim = phase_claim(GOOD, CLAIMS)
    assert claim.verdict is Verdict.MECHANISM_SHOWN
    assert (
        "language: 3.0100 after phase language, 2.8100 after phase code (6.64% lower" in claim.ours
    )


@pytest.mark.parametrize("second", [(3.0, 2.4), (3.1, 2.4), (2.8, 3.5)])
def test_a_phase_that_does_not_help_both_is_not_claimed(second: tuple[float, float]) -> None:
    claim = phase_claim(bits(("language", 3.0, 3.5), ("code", *second)), CLAIMS)
    assert verdicts(claim) == [Verdict.NOT_BORNE_OUT] and claim.borne_out is False


def scores(bits_per_byte: float, alone: float = 1.1) -> list[InfillingScore]:
    """``alone`` is what the middles cost after the prefix alone, as a multiple."""
    nats = bits_per_byte * 1000 * 0.6931471805599453
    return [
        InfillingScore(10, 1000, nats * (1 + shift), nats * (alone + shift)) for shift in WOBBLE
    ]


def test_gaps_that_are_filled_at_little_cost() -> None:
    arms = {PUBLISHED: GOOD, "left to right": bits(("language", 3.0, 3.5), ("code", 2.8, 2.38))}
    filled = {PUBLISHED: scores(2.5), "left to right": scores(3.2)}
    learned, little = filled_gaps_claim(filled, CLAIMS), reading_claim(arms, CLAIMS)
    assert verdicts(learned, little) == [Verdict.MECHANISM_SHOWN] * 2
    assert "2.5250 bits per byte, 21.88% lower" in learned.ours
    assert "9.01% lower (+- 0.20% over 3 seeds) than the same middles" in learned.ours
    blind = {**filled, PUBLISHED: scores(2.5, alone=1.0)}
    assert filled_gaps_claim(blind, CLAIMS).borne_out is False
    dear = {**arms, "left to right": bits(("language", 3.0, 3.5), ("code", 2.8, 2.3))}
    unfilled = {**filled, PUBLISHED: scores(3.19)}
    failed = filled_gaps_claim(unfilled, CLAIMS), reading_claim(dear, CLAIMS)
    assert verdicts(*failed) == [Verdict.NOT_BORNE_OUT] * 2


@pytest.mark.parametrize(
    ("bare", "verdict"),
    [
        (3.0, Verdict.MECHANISM_SHOWN),
        (2.85, Verdict.NOT_BORNE_OUT),  # replay brings nothing
        (2.7, Verdict.NOT_BORNE_OUT),  # nothing is forgotten
    ],
)
def test_what_the_last_phase_forgets(bare: float, verdict: Verdict) -> None:
    without = bits(("language", 3.0, 3.5), ("code", 2.8, 2.4), ("application", bare, 2.2))
    assert last_phase_claim({PUBLISHED: GOOD, "no replay": without}, CLAIMS).verdict is verdict


def test_an_order_that_trades_one_kind_for_the_other_is_not_better() -> None:
    better = {PUBLISHED: GOOD, "pooled": bits(("pooled", 2.9, 2.5))}
    traded = {PUBLISHED: GOOD, "pooled": bits(("pooled", 2.7, 2.5))}
    assert order_claim(better, CLAIMS).verdict is Verdict.MECHANISM_SHOWN
    assert order_claim(traded, CLAIMS).verdict is Verdict.NOT_BORNE_OUT


def test_the_pooled_text_is_that_of_the_two_phases() -> None:
    def read(*overrides: str, phases: int) -> tuple[float, dict[str, float], dict[str, float]]:
        total, shares, rearranged = 0.0, {}, {}
        for phase in load_recipe("crystal/small", list(overrides)).recipe.phases[:phases]:
            steps = float(phase.length.value)
            total += steps
            assert phase.mixture != "natural"
            for name, entry in phase.mixture.items():
                share = entry if isinstance(entry, float) else entry.probability
                gap = None if isinstance(entry, float) else entry.fill_in_the_middle
                shares[name] = shares.get(name, 0.0) + steps * share
                rearranged[name] = rearranged.get(name, 0.0) + steps * share * (
                    gap.rate if gap else 0.0
                )
        return total, shares, rearranged

    phased, pooled = read(phases=2), read("choose.order=pooled", phases=1)
    assert pooled[0] == phased[0]
    for own, other in zip(pooled[1:], phased[1:], strict=True):
        assert own == pytest.approx(other, rel=1e-6)


def test_arms_and_seeds_come_in_order() -> None:
    runs = finished(trials(Scale.SMALL), lambda values: values["seed"])
    arms = by_name(runs, tuple(ARMS))
    assert list(arms) == list(ARMS)
    for name, own in arms.items():
        assert [run.score for run in own] == list(range(SEEDS[Scale.SMALL]))
        assert all(values_of(run.trial).items() >= ARMS[name].items() for run in own)


def test_validations_are_read_from_the_records(tmp_path: Path) -> None:
    lines = []
    for step, phase in ((1, "language"), (2, "language"), (3, "code")):
        record: dict[str, object] = {"step": step, "tokens": 10 * step, "phase": phase}
        if step > 1:
            for number, name in enumerate(("shakespeare", "django-docs", "py-stdlib")):
                record[f"validation/{name}/bits_per_byte"] = step + number
                record[f"validation/{name}/loss"] = 99.0
            record["validation/bits_per_byte"] = 99.0
        lines.append(json.dumps(record))
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    curve = validation_curve(tmp_path)
    kinds = {"shakespeare": 2, "django-docs": 3, "py-stdlib": 4}
    assert curve[0] == Validation(2, 20, "language", kinds) and len(curve) == 2
    found = bits_by_phase([curve, curve])
    assert found == {
        "language": {"language": [2.5, 2.5], "code": [4, 4]},
        "code": {"language": [3.5, 3.5], "code": [5, 5]},
    }
    assert phase_table({PUBLISHED: found}).rows[1] == [PUBLISHED, "code", "3.5000", "5.0000"]
    assert "bits per byte" in curve_figure(mean_curve([curve, curve])).svg
