"""Crystal's claims on made-up figures, and the text of its arms: each claim can fail."""

import json
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import pytest

from feldspar.evaluate.tasks.filled_gaps import Reading
from feldspar.papers.crystal.experiment import (
    BRANCH_SEEDS,
    INFILLINGS,
    LAST_SEEDS,
    ORDER_SEEDS,
    PAPER,
    infilling_trials,
    last_trials,
    order_trials,
)
from feldspar.papers.crystal.infilling import (
    GAPS,
    PLAIN,
    READINGS,
    FilledGaps,
    filled_gaps_claim,
    reading_claim,
)
from feldspar.papers.crystal.kinds import KindBits, bits_along, bits_by_phase, by_kind
from feldspar.papers.crystal.last_phase import (
    ALONE,
    APPLICATION,
    LAST_PHASES,
    MORE,
    no_gain_claim,
    replay_claim,
)
from feldspar.papers.crystal.order import (
    CODE_ALONE,
    ORDERS,
    PHASED,
    POOLED,
    order_claim,
    steady_claim,
    transfer_claim,
)
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.paper import Figures, Scale, by_name, values_of
from feldspar.papers.kit.validation_curve import Validation, validation_curve
from feldspar.recipe.load import load_recipe
from tests.papers.conftest import finished, stated

WOBBLE = (0.0, 0.01, 0.02)
DOCUMENTS = 21


def bits(language: float, code: float) -> KindBits:
    """Bits per byte of three seeds."""
    return {
        "language": [language + shift for shift in WOBBLE],
        "code": [code + shift for shift in WOBBLE],
        "mean": [(language + code) / 2 + shift for shift in WOBBLE],
    }


def gaps(**changes: float) -> dict[str, Any]:
    """Figures of gaps: bits per byte by reading of the model with fill-in-the-middle, ``plain`` and
    ``plain_suffix_first`` of the other one; names with underscores for spaces."""
    level = {reading.value: 2.0 for reading in Reading if "other" not in reading.value}
    level |= {reading.value: 2.3 for reading in Reading if "other" in reading.value}
    level[Reading.PREFIX_ALONE.value] = 2.2
    plain = dict.fromkeys((each.value for each in READINGS[PLAIN]), changes.pop("plain", 2.15))
    plain[Reading.SUFFIX_FIRST.value] = changes.pop("plain_suffix_first", 2.12)
    level |= {name.replace("_", " "): value for name, value in changes.items()}

    def nats(value: float) -> list[list[float]]:
        sway = [0.02 * (number % 3 - 1) for number in range(DOCUMENTS)]
        return [[100 * log(2) * (value + shift + own) for own in sway] for shift in WOBBLE]

    arms = {GAPS: level, PLAIN: plain}
    return {
        "gaps": [10] * DOCUMENTS,
        "bytes": [100] * DOCUMENTS,
        "nats": {
            arm: {name: nats(own) for name, own in each.items()} for arm, each in arms.items()
        },
        "exact": {arm: {name: [20, 21, 22] for name in each} for arm, each in arms.items()},
    }


def figures() -> Figures:
    """Figures with which every claim holds."""
    return {
        "phases": {"language": bits(3.0, 3.5), "code": bits(2.8, 2.4)},
        "curve": [bits(3.2, 3.6), bits(3.0, 3.5), bits(3.05, 2.7), bits(2.8, 2.4)],
        "tokens": [10, 20, 30, 40],
        "ends": {
            PHASED: bits(2.8, 2.4),
            POOLED: bits(2.8, 2.5),
            CODE_ALONE: bits(3.9, 2.5),
            GAPS: bits(2.4, 2.02),
            PLAIN: bits(2.4, 2.0),
            MORE: bits(2.39, 2.01),
            APPLICATION: bits(2.41, 2.01),
            ALONE: bits(2.5, 2.01),
        },
        "infilling": gaps(),
    }


CLAIMS = stated(PAPER)
ON_BITS: dict[str, Callable[[Figures], Claim]] = {
    "both-phases-help-both-kinds": lambda found: steady_claim(
        found["phases"], found["curve"], CLAIMS
    ),
    "language-helps-code": lambda found: transfer_claim(found["ends"], CLAIMS),
    "order-balances": lambda found: order_claim(found["ends"], CLAIMS),
    "infilling-costs-little": lambda found: reading_claim(
        found["ends"][GAPS], found["ends"][PLAIN], CLAIMS
    ),
    "replay-keeps-language": lambda found: replay_claim(found["ends"][GAPS], found["ends"], CLAIMS),
    "last-phase-brings-nothing": lambda found: no_gain_claim(found["ends"], CLAIMS),
}
"""The claims that need no bootstrap, which takes time."""


def filled(order: Reading, **changes: float) -> Claim:
    """The claim on made-up gaps."""
    return filled_gaps_claim(FilledGaps(gaps(**changes)), order, CLAIMS)


def test_all_claims_can_hold() -> None:
    found = PAPER.judge(json.loads(json.dumps(figures())), Scale.SMALL, CLAIMS)
    claims = {claim.name: claim for claim in found.claims}
    assert all(claim.borne_out for claim in claims.values()), claims
    own = claims["infilling-is-learned"].ours
    assert "210 gaps in 21 documents of held-out code: the middle costs 2.0100 bits" in own
    assert "9.05% lower (+- 0.10% over 3 seeds), over documents 9.02% to 9.08% lower" in own
    assert "fell in 3 of 3 intervals" in claims["both-phases-help-both-kinds"].ours
    assert [len(table.rows) for table in found.tables] == [8, 3, 5]


@pytest.mark.parametrize(
    ("claim", "arm", "failing"),
    [
        ("language-helps-code", CODE_ALONE, bits(3.9, 2.4)),
        ("language-helps-code", CODE_ALONE, bits(3.9, 2.3)),
        ("order-balances", POOLED, bits(2.7, 2.5)),  # one kind is traded for the other
        ("infilling-costs-little", GAPS, bits(2.4, 2.1)),
        ("replay-keeps-language", ALONE, bits(2.41, 2.01)),  # replay brings nothing
        ("replay-keeps-language", GAPS, bits(2.6, 2.02)),  # nothing is forgotten
        ("last-phase-brings-nothing", APPLICATION, bits(2.36, 1.98)),  # phase 3 brings a gain
    ],
)
def test_a_claim_on_bits_can_fail(claim: str, arm: str, failing: KindBits) -> None:
    found = figures()
    found["ends"][arm] = failing
    assert ON_BITS[claim](found).borne_out is False


def test_a_noisy_gain_of_phase_3_is_not_taken_for_none() -> None:
    found = figures()
    found["ends"][APPLICATION]["mean"] = [2.1, 2.2, 2.4]
    assert ON_BITS["last-phase-brings-nothing"](found).borne_out is False


@pytest.mark.parametrize(
    ("order", "failing"),
    [
        (Reading.PREFIX_FIRST, {"prefix_alone": 2.0}),  # the suffix is not used
        (Reading.SUFFIX_FIRST, {"plain": 2.0}),
        (Reading.SUFFIX_FIRST, {"plain_suffix_first": 2.0}),  # no such training is needed
        (Reading.SUFFIX_FIRST, {"suffix_first,_other_suffix": 2.0}),
        (Reading.PREFIX_FIRST, {"prefix_first": 2.4}),
    ],
)
def test_gaps_that_the_suffix_does_not_fill(order: Reading, failing: dict[str, float]) -> None:
    assert filled(order, **failing).borne_out is False


def test_gaps_that_few_documents_decide_are_not_filled() -> None:
    found = gaps()
    for seed in found["nats"][GAPS][Reading.PREFIX_ALONE.value]:
        seed[:] = [*(own * 0.9 for own in seed[:-1]), seed[-1] * 3.8]
    gain = FilledGaps(found).compared((GAPS, Reading.PREFIX_FIRST), (GAPS, Reading.PREFIX_ALONE))
    assert gain.by_seed.exceeds(0.005) and not gain.exceeds(0.005)


@pytest.mark.parametrize(
    "curve",
    [
        [bits(3.0, 3.5), bits(3.2, 3.5), bits(2.8, 2.4)],  # it rose on the way
        [bits(3.0, 3.5), bits(3.0, 3.5), bits(2.8, 2.4)],  # it stood still
    ],
)
def test_a_mean_that_does_not_fall_steadily(curve: list[KindBits]) -> None:
    claim = ON_BITS["both-phases-help-both-kinds"](figures() | {"curve": curve})
    assert claim.borne_out is False and "fell in 1 of 2 intervals" in claim.ours


@pytest.mark.parametrize("second", [(3.0, 2.4), (3.1, 2.4), (2.8, 3.5)])
def test_a_phase_that_does_not_help_both_is_not_claimed(second: tuple[float, float]) -> None:
    phases = {"language": bits(3.0, 3.5), "code": bits(*second)}
    claim = ON_BITS["both-phases-help-both-kinds"](figures() | {"phases": phases})
    assert claim.borne_out is False


def shares(*overrides: str) -> tuple[float, dict[str, float]]:
    """The tokens of a small run, in steps, and those of each source."""
    total, found = 0.0, dict[str, float]()
    for phase in load_recipe("crystal/small", list(overrides)).recipe.phases:
        steps = float(phase.length.value)
        total += steps
        assert phase.mixture != "natural"
        for name, entry in phase.mixture.items():
            share = entry if isinstance(entry, float) else entry.probability
            found[name] = found.get(name, 0.0) + steps * (share or 0.0)
    return total, found


def test_the_other_orders_read_the_text_of_the_two_phases() -> None:
    (total, phased), pooled = shares(), shares("choose.order=pooled")
    assert pooled == (total, pytest.approx(phased, rel=1e-9))
    alone_total, alone = shares("choose.order=code-alone")
    assert set(alone) == {"django-code", "package-code", "py-stdlib"}
    assert alone == pytest.approx({name: phased[name] for name in alone}, rel=1e-9)
    assert alone_total == pytest.approx(sum(alone.values()))


def test_arms_and_seeds_come_in_order() -> None:
    scale = Scale.SMALL
    sets = (
        (order_trials(scale), ORDERS, ORDERS, "choose.order", ORDER_SEEDS),
        (
            infilling_trials(scale),
            INFILLINGS,
            INFILLINGS.values(),
            "choose.infilling",
            BRANCH_SEEDS,
        ),
        (last_trials(scale, {}), LAST_PHASES, LAST_PHASES, "choose.phase", LAST_SEEDS),
    )
    for trials, names, choices, key, seeds in sets:
        runs = finished(trials, lambda values: values["seed"])
        arms = by_name(runs, tuple(names))
        for own, choice in zip(arms.values(), choices, strict=True):
            assert tuple(run.score for run in own) == seeds[scale]
            assert all(values_of(run.trial)[key] == choice for run in own)


def test_branches_start_from_the_run_of_their_seed_with_another_seed() -> None:
    scale = Scale.SMALL
    begun = finished(infilling_trials(scale), lambda values: 1.0)
    for index, trial in enumerate(infilling_trials(scale)):
        assert values_of(trial)["start_from"]["path"] == f"runs/trunks/{index % 3}"
    for index, trial in enumerate(last_trials(scale, {"infilling": begun})):
        start = begun[index % 3]
        assert values_of(trial)["start_from"]["path"] == str(start.folder)
        assert values_of(start.trial)["choose.infilling"] == "paper"
        assert values_of(trial)["seed"] != values_of(start.trial)["seed"]


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
    assert by_kind(curve[0].bits_per_byte) == {"language": 2.5, "code": 4, "mean": 3.25}
    ends = {
        "language": {"language": [2.5, 2.5], "code": [4, 4], "mean": [3.25, 3.25]},
        "code": {"language": [3.5, 3.5], "code": [5, 5], "mean": [4.25, 4.25]},
    }
    assert bits_by_phase([curve, curve]) == ends
    assert bits_along([curve, curve]) == list(ends.values())
