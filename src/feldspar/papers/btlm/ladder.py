"""BTLM's single changes to the Cerebras-GPT recipe, each by itself and all together.

All arms read the same text with the same seeds. The two feed-forward layers have a learning rate of
their own each, tuned with a seed that is not compared.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain, power, relative_spread
from feldspar.papers.kit.paper import Figures, Results, Scale, by_name
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.kit.text_baselines import text_baselines
from feldspar.papers.kit.tuned_rates import RATE, best_rate, scores_by_rate
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial

LADDER_RECIPE = "btlm/ladder"
SCORE = "validation/bits_per_byte"
RATES_STAGE, LADDER_STAGE = "ladder-rates", "ladder"
BITS = "bits_per_byte"

FEED_FORWARD, POSITIONS, DECAY = "choose.feed_forward", "choose.positions", "choose.decay"
OLD = {FEED_FORWARD: "gelu", POSITIONS: "learned", DECAY: "tenth"}
NEW = {FEED_FORWARD: "swiglu", POSITIONS: "alibi", DECAY: "deep"}
CHANGES = {"swiglu": FEED_FORWARD, "alibi": POSITIONS, "decay": DECAY}
BASE, ALL = "base", "all"
ARMS: dict[str, dict[str, str]] = {
    BASE: OLD,
    **{name: OLD | {key: NEW[key]} for name, key in CHANGES.items()},
    ALL: NEW,
}
"""Each arm and its choices."""
CLAIMED = (*CHANGES, ALL)
"""The arms that claims compare with the base."""

SEEDS = {Scale.QUICK: range(1, 2), Scale.SMALL: range(1, 6)}
TUNING_SEED = 0
RATES = (2.0**-7, 2.0**-6, 2.0**-5)
"""Peak learning rates that GELU and SwiGLU try in the base's other settings."""
QUICK = ("phases.0.length=80 steps",)


def rate_trials(scale: Scale) -> list[Trial]:
    """Return the base and SwiGLU at every rate; a quick run has the middle one only."""
    rates = RATES[1:2] if scale is Scale.QUICK else RATES
    return [
        trial_of({**ARMS[arm], RATE: rate}, TUNING_SEED, shortened(scale))
        for arm in (BASE, "swiglu")
        for rate in rates
    ]


def ladder_trials(results: Results, scale: Scale) -> list[Trial]:
    """Return every arm with every seed at the rate of its feed-forward layer, seeds fastest."""
    tuned = scores_by_rate(results.get(RATES_STAGE, ()), FEED_FORWARD)
    return [
        trial_of({**own, RATE: chosen_rate(tuned, own[FEED_FORWARD])}, seed, shortened(scale))
        for own in ARMS.values()
        for seed in SEEDS[scale]
    ]


def shortened(scale: Scale) -> tuple[str, ...]:
    """Return the override that shortens the runs of a quick experiment."""
    return QUICK if scale is Scale.QUICK else ()


def chosen_rate(tuned: Mapping[str, Mapping[float, float]], feed_forward: str) -> float:
    """Return the rate of the fewest bits; one of the grid before any run."""
    if feed_forward not in tuned:
        return RATES[1]
    return best_rate(tuned[feed_forward])


def measure_ladder(results: Results, scale: Scale) -> Figures:
    """Return bits per byte by arm and seed, those of the rates, and those without a model."""
    arms = by_name(results[LADDER_STAGE], tuple(ARMS))
    tuned = scores_by_rate(results[RATES_STAGE], FEED_FORWARD)
    return {
        LADDER_STAGE: {
            BITS: {name: [run.score for run in runs] for name, runs in arms.items()},
            "rates": {name: [list(pair) for pair in own.items()] for name, own in tuned.items()},
            "baselines": text_baselines(LADDER_RECIPE, shortened(scale)),
        }
    }


def ladder_claims(figures: Figures, claims: StatedClaims) -> list[Claim]:
    """Judge each change and all together; an earlier experiment's figures give no verdict."""
    if not has_ladder(figures):
        return [claims.unrecorded(claim_name(change)) for change in CLAIMED]
    bits = figures[LADDER_STAGE][BITS]
    return [change_claim(change, bits, claims) for change in CLAIMED]


def has_ladder(figures: Figures) -> bool:
    """Return True for figures of this ladder: an earlier one recorded losses by arm alone, and the
    paper's own run has none."""
    return BITS in figures.get(LADDER_STAGE, {})


def claim_name(change: str) -> str:
    """Return the name of the claim on a change."""
    return f"change-{change}"


def change_claim(change: str, bits: Mapping[str, Sequence[float]], claims: StatedClaims) -> Claim:
    """Judge a change by itself, or all of them together."""
    own = Gain.of(bits[change], bits[BASE])
    beside = against_single_changes(bits) if change == ALL else ""
    held = own.exceeds(claims.limit(claim_name(change), "noise"))
    return claims.judged(
        claim_name(change),
        f"{own.lower_or_higher} than without, {fmean(bits[change]):.4f} against "
        f"{fmean(bits[BASE]):.4f} bits per byte{power(own)}{beside}",
        held=held,
        reading="" if held or own.mean > 0 else "no_gain",
    )


def against_single_changes(bits: Mapping[str, Sequence[float]]) -> str:
    """Say how all changes together compare with the best single one."""
    best = min(CHANGES, key=lambda name: fmean(bits[name]))
    gain = Gain.of(bits[ALL], bits[best])
    return f"; {gain.lower_or_higher} than with {best} alone"


def ladder_section(figures: Figures) -> Section:
    """Return the tables of arms and of rates."""
    found = figures[LADDER_STAGE]
    words = (
        "Held-out bits per byte at the end of training, means over the seeds; gains are paired by "
        "seed. The trigram read the same tokens; xz compresses the held-out documents of a source "
        "as one stream."
    )
    return Section("Single changes", [words], [ladder_arms(figures), rate_table(found["rates"])])


def ladder_arms(figures: Figures) -> Table:
    """Return the table of arms and baselines."""
    found = figures[LADDER_STAGE]
    return arm_table(found[BITS], found["baselines"])


def arm_table(bits: Mapping[str, Sequence[float]], baselines: Mapping[str, float]) -> Table:
    """Return a row for each arm with the spread of its seeds and its gain, and the baselines."""
    rows = []
    for name, own in bits.items():
        spread = relative_spread(own)
        gain = "" if name == BASE else str(Gain.of(own, bits[BASE]))
        rows.append([name, f"{fmean(own):.4f}", "-" if spread is None else f"{spread:.2%}", gain])
    rows += [[name, f"{value:.4f}", "", ""] for name, value in baselines.items()]
    return Table(["change", "bits per byte", "spread of seeds", f"lower than {BASE}"], rows)


def rate_table(rates: Mapping[str, Sequence[Sequence[float]]]) -> Table:
    """Return the bits per byte of each feed-forward layer by rate, the chosen one marked."""
    rows = []
    for name, pairs in rates.items():
        best = min(bits for _, bits in pairs)
        cells = [f"{bits:.4f}{' *' if bits == best else ''}" for _, bits in pairs]
        rows.append([name, *cells])
    tried = [f"rate {rate:.4g}" for rate, _ in next(iter(rates.values()))]
    return Table([f"tuned with seed {TUNING_SEED}", *tried], rows)
