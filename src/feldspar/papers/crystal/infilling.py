"""Gaps in held-out code: the two orders, another document's suffix, and the prefix alone.

A model that was trained with fill-in-the-middle is compared with itself and with one that read the
same text from left to right. The latter has never seen the marks, but a suffix that comes first may
help it all the same, so that it is scored in both orders too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import fmean
from typing import Any

from feldspar.core.bootstrap import ratio_interval
from feldspar.core.progress import progress
from feldspar.evaluate.tasks.filled_gaps import (
    BOTH_ORDERS,
    OTHER_SUFFIX,
    InfillingScore,
    Reading,
    evaluate_infilling,
)
from feldspar.papers.crystal.kinds import CODE, CODE_KIND, KindBits
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain, power
from feldspar.papers.kit.stated import StatedClaims
from feldspar.report.page import Table
from feldspar.train.data import open_shards
from feldspar.train.load import load_run, text_model_of

GAPS, PLAIN = "gaps", "left to right"
"""The model that was trained with fill-in-the-middle, and the one without."""
READINGS = {GAPS: tuple(Reading), PLAIN: (*BOTH_ORDERS, Reading.PREFIX_ALONE)}
"""The readings of each arm."""
GAPS_SEED = 0
"""The same gaps for every run, whatever it was trained with."""
WINDOW_TOKENS = 64
"""Tokens of a window with a gap."""


def measure_gaps(
    runs: Mapping[str, Sequence[Path]], max_tokens_per_source: int | None
) -> dict[str, Any]:
    """Return the number and bytes of the gaps of each document, and the nats of each arm by
    reading: one list a seed, with one number a document."""
    figures: dict[str, Any] = {"nats": {}, "exact": {}}
    with progress("filling gaps", sum(map(len, runs.values())), "models") as advance:
        for arm, folders in runs.items():
            nats = figures["nats"][arm] = {each.value: [] for each in READINGS[arm]}
            exact = figures["exact"][arm] = {each.value: [] for each in READINGS[arm]}
            for folder in folders:
                scores = _score(folder, READINGS[arm], max_tokens_per_source)
                figures["gaps"] = [score.gaps for score in scores]
                figures["bytes"] = [score.bytes for score in scores]
                for each in READINGS[arm]:
                    nats[each.value].append([round(score.nats[each], 4) for score in scores])
                    exact[each.value].append(sum(score.exact[each] for score in scores))
                advance(1)
    return figures


def _score(
    folder: Path, readings: Sequence[Reading], max_tokens_per_source: int | None
) -> list[InfillingScore]:
    """Return the scores of all documents of held-out code, sources in their order."""
    run = load_run(folder)
    found = evaluate_infilling(
        text_model_of(run),
        open_shards(run.recipe),
        GAPS_SEED,
        max_tokens_per_source=max_tokens_per_source,
        readings=readings,
        window_tokens=WINDOW_TOKENS,
        sources=CODE,
    )
    return [score for own in found.values() for score in own]


@dataclass(frozen=True)
class FilledGaps:
    """The recorded nats of every document, and comparisons of them."""

    figures: Mapping[str, Any]

    def bits(self, arm: str, reading: Reading) -> list[float]:
        """Return the bits per byte of each seed."""
        bits = log(2) * sum(self.figures["bytes"])
        return [sum(own) / bits for own in self.figures["nats"][arm][reading.value]]

    def compared(self, one: tuple[str, Reading], other: tuple[str, Reading]) -> "GapGain":
        """Return the share by which ``one`` is lower than ``other``, each an arm and a reading.

        For the interval over documents the nats of all seeds are added.
        """
        over, under = (
            [sum(seeds) for seeds in zip(*self.figures["nats"][arm][reading.value], strict=True)]
            for arm, reading in (one, other)
        )
        low, high = ratio_interval(over, under)
        return GapGain(Gain.of(self.bits(*one), self.bits(*other)), 1 - high, 1 - low)


@dataclass(frozen=True)
class GapGain:
    """A gain over seeds, with its interval by the bootstrap over documents."""

    by_seed: Gain
    low: float
    high: float

    def exceeds(self, noise: float) -> bool:
        """Return True where both intervals lie above zero and the mean above ``noise``."""
        return self.by_seed.exceeds(noise) and self.low > 0

    def __str__(self) -> str:
        words = self.by_seed.lower_or_higher
        if self.high < 0:
            documents = f"over documents {-self.high:.2%} to {-self.low:.2%} higher"
        else:
            documents = f"over documents {self.low:.2%} to {self.high:.2%} lower"
        return f"{words}, {documents}{power(self.by_seed)}"


CLAIM_OF = {
    Reading.PREFIX_FIRST: "infilling-is-learned",
    Reading.SUFFIX_FIRST: "infilling-suffix-first",
}


def filled_gaps_claim(filled: FilledGaps, order: Reading, claims: StatedClaims) -> Claim:
    """Judge the middles after both sides in one order, against the model's other ways and all ways
    of the model trained left to right."""
    other = OTHER_SUFFIX[BOTH_ORDERS.index(order)]
    alone = Reading.PREFIX_ALONE
    ways = {
        "after the prefix alone": (GAPS, alone),
        "with the suffix of another document": (GAPS, other),
    } | {f"trained left to right, {way}": (PLAIN, way) for way in READINGS[PLAIN]}
    gains = {name: filled.compared((GAPS, order), way) for name, way in ways.items()}
    told = "; ".join(
        f"{name} {fmean(filled.bits(*ways[name])):.4f} ({gain})" for name, gain in gains.items()
    )
    noise = claims.limit(CLAIM_OF[order], "noise")
    gaps, documents = sum(filled.figures["gaps"]), len(filled.figures["gaps"])
    return claims.judged(
        CLAIM_OF[order],
        f"{gaps:,} gaps in {documents} documents of held-out code: the middle costs "
        f"{fmean(filled.bits(GAPS, order)):.4f} bits per byte; {told}",
        held=all(gain.exceeds(noise) for gain in gains.values()),
    )


def reading_claim(gaps: KindBits, plain: KindBits, claims: StatedClaims) -> Claim:
    """Judge the cost of fill-in-the-middle where code is read from left to right."""
    own, other = gaps[CODE_KIND], plain[CODE_KIND]
    gain = Gain.of(own, other)
    return claims.kept(
        "infilling-costs-little",
        f"held-out code after phase 2: {fmean(own):.4f} bits per byte with, {fmean(other):.4f} "
        f"without ({gain.lower_or_higher}){power(gain)}",
        gain,
    )


def infilling_table(filled: FilledGaps) -> Table:
    """Return a row for each arm and reading: bits per byte, difference, exact middles."""
    alone = Reading.PREFIX_ALONE
    count = sum(filled.figures["gaps"])
    rows = [
        [
            arm,
            reading.value,
            f"{fmean(filled.bits(arm, reading)):.4f}",
            ""
            if (arm, reading) == (PLAIN, alone)
            else str(filled.compared((arm, reading), (PLAIN, alone))),
            f"{fmean(filled.figures['exact'][arm][reading.value]) / count:.2%}",
        ]
        for arm, readings in READINGS.items()
        for reading in readings
    ]
    heads = ["trained", "read before the middle", "bits per byte"]
    return Table([*heads, "against left to right after the prefix", "exact middles"], rows)
