"""Crystal (2411.04156): language first, then code with fill-in-the-middle, then mostly code.

The same seeds train the recipe as it is and with one thing taken back: fill-in-the-middle, the
replay of prose in the last phase, or the order itself (the text of the first two phases pooled).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from feldspar.core.progress import progress
from feldspar.evaluate.tasks.filled_gaps import InfillingScore, evaluate_infilling
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.paper import (
    Data,
    Figures,
    Findings,
    Paper,
    Results,
    Scale,
    Stage,
    by_name,
)
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.kit.validation_curve import Validation, ends_of_phases, validation_curve
from feldspar.report.figures import Figure, Series, line_figure
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial
from feldspar.train.data import open_shards
from feldspar.train.load import load_run, text_model_of

RECIPE = "crystal/small"
SCORE = "validation/bits_per_byte"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3}
QUICK_STEPS = (20, 30, 10)
"""Steps of the three phases of a quick run."""

CHOICES = {"choose.order": "phased", "choose.infilling": "paper", "choose.replay": "some"}
PUBLISHED = "as published"
ARMS: dict[str, dict[str, str]] = {
    PUBLISHED: CHOICES,
    "left to right": CHOICES | {"choose.infilling": "none"},
    "no replay": CHOICES | {"choose.replay": "none"},
    "pooled": CHOICES | {"choose.order": "pooled"},
}
"""The arms by the choices of the small recipe."""
PAPER_RUN = Trial("crystal", ())

CODE = frozenset(
    ("django-code", "py-stdlib", "github", "starcoder", "python", "html", "javascript", "css")
)
"""Sources of code in the recipes crystal/small and crystal/paper; all others are language."""
LANGUAGE_KIND, CODE_KIND = "language", "code"

Bits = dict[str, dict[str, list[float]]]
"""Bits per byte of each seed, by phase and kind."""
TOKENS_PER_SOURCE = 60_000
GAPS_SEED = 0
"""The same gaps for every run, whatever it was trained with."""


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the arms; at the paper's scale its one run."""
    if scale is Scale.PAPER:
        return (Stage("phases", "crystal/paper", lambda _: [PAPER_RUN], SCORE),)
    return (Stage("phases", RECIPE, lambda _: trials(scale), SCORE, keeps_weights=True),)


def trials(scale: Scale) -> list[Trial]:
    """Return every arm with every seed, seeds fastest."""
    return [
        trial_of(arm, seed, shortened(arm) if scale is Scale.QUICK else [])
        for arm in ARMS.values()
        for seed in range(SEEDS[scale])
    ]


def shortened(arm: Mapping[str, str]) -> list[str]:
    """Return the overrides of a quick run, which validates often enough to see every phase end."""
    first, second, third = QUICK_STEPS
    pooled = arm["choose.order"] == "pooled"
    steps = (first + second,) if pooled else QUICK_STEPS
    lengths = [f"phases.{index}.length={count} steps" for index, count in enumerate(steps)]
    return [*lengths, f"evaluation.every={third} steps"]


def measure(results: Results, scale: Scale) -> Figures:
    """Read the bits per byte of phases and along the published arm; below the paper's scale gaps
    are filled too."""
    names = (PUBLISHED,) if scale is Scale.PAPER else tuple(ARMS)
    runs = by_name(results["phases"], names)
    curves = {name: [validation_curve(run.folder) for run in own] for name, own in runs.items()}
    found: Figures = {
        "bits_per_byte": {name: bits_by_phase(own) for name, own in curves.items()},
        "curve": mean_curve(curves[PUBLISHED]),
    }
    if scale is Scale.PAPER:
        return found
    filled = {
        name: infilling_of_runs([run.folder for run in runs[name]], CODE)
        for name in (PUBLISHED, "left to right")
    }
    scores = {name: [asdict(score) for score in own] for name, own in filled.items()}
    return found | {"infilling": scores}


def infilling_of_runs(runs: Sequence[Path], sources: Collection[str]) -> list[InfillingScore]:
    """Return the score of each run over the named sources together."""
    scores = []
    with progress("filling gaps", len(runs), "models") as advance:
        for folder in runs:
            run = load_run(folder)
            found = evaluate_infilling(
                text_model_of(run),
                open_shards(run.recipe),
                GAPS_SEED,
                max_tokens_per_source=TOKENS_PER_SOURCE,
            )
            own = [score for name, score in found.items() if name in sources]
            scores.append(sum(own, InfillingScore()))
            advance(1)
    return scores


def by_kind(bits: Mapping[str, float]) -> dict[str, float]:
    """Return the mean over the sources of each kind, each source counted alike."""
    kinds = {name: CODE_KIND if name in CODE else LANGUAGE_KIND for name in bits}
    return {
        kind: fmean(bits[name] for name in bits if kinds[name] == kind)
        for kind in (LANGUAGE_KIND, CODE_KIND)
        if kind in kinds.values()
    }


def bits_by_phase(curves: Sequence[Sequence[Validation]]) -> Bits:
    """Return the bits per byte at the end of each phase; one curve a seed."""
    found: Bits = {}
    for curve in curves:
        for phase, end in ends_of_phases(curve).items():
            for kind, value in by_kind(end.bits_per_byte).items():
                found.setdefault(phase, {}).setdefault(kind, []).append(value)
    return found


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and the drawing."""
    bits = figures["bits_per_byte"]
    figure = curve_figure(figures["curve"]) if "curve" in figures else None
    phases = Section("Phases", [ENDS], [phase_table(bits)], [figure] if figure else [])
    if scale is Scale.PAPER:
        return Findings((phase_claim(bits[PUBLISHED], claims),), (phases,), figure)
    filled = {
        name: [InfillingScore(**score) for score in own]
        for name, own in figures["infilling"].items()
    }
    judged = (
        phase_claim(bits[PUBLISHED], claims),
        filled_gaps_claim(filled, claims),
        reading_claim(bits, claims),
        last_phase_claim(bits, claims),
        order_claim(bits, claims),
    )
    gaps = Section("Fill-in-the-middle", [GAPS], [infilling_table(filled)])
    return Findings(judged, (phases, gaps), figure)


def phase_claim(bits: Bits, claims: StatedClaims) -> Claim:
    """Judge the gain of both kinds of text in the second phase."""
    (first, second), phases = list(bits.values())[:2], list(bits)[:2]
    gains = {kind: Gain.of(second[kind], first[kind]) for kind in (LANGUAGE_KIND, CODE_KIND)}
    told = "; ".join(
        f"{kind}: {fmean(first[kind]):.4f} after phase {phases[0]}, {fmean(second[kind]):.4f} "
        f"after phase {phases[1]} ({gain.lower_or_higher})"
        for kind, gain in gains.items()
    )
    return claims.lower(
        "both-phases-help-both-kinds", f"held-out bits per byte, {told}", *gains.values()
    )


def filled_gaps_claim(
    filled: Mapping[str, Sequence[InfillingScore]], claims: StatedClaims
) -> Claim:
    """Judge the bits per byte of the middles of gaps."""
    middles = {arm: [bits_of(score) for score in scores] for arm, scores in filled.items()}
    gained = Gain.of(middles[PUBLISHED], middles["left to right"])
    scores = filled[PUBLISHED]
    suffix = Gain.of([own.nats for own in scores], [own.nats_left_to_right for own in scores])
    return claims.lower(
        "infilling-is-learned",
        "middle of held-out code after prefix and suffix: "
        f"{fmean(middles[PUBLISHED]):.4f} bits per byte, {gained.lower_or_higher} than "
        f"without such training ({fmean(middles['left to right']):.4f}), and "
        f"{suffix.lower_or_higher} than the same middles after the prefix alone",
        gained,
        suffix,
    )


def reading_claim(bits: Mapping[str, Bits], claims: StatedClaims) -> Claim:
    """Judge the cost of fill-in-the-middle where code is read from left to right."""
    phase = list(bits[PUBLISHED])[1]
    own, other = (bits[arm][phase][CODE_KIND] for arm in (PUBLISHED, "left to right"))
    loss = Gain.of(own, other)
    return claims.kept(
        "infilling-costs-little",
        f"held-out code after phase {phase}: {fmean(own):.4f} bits per byte with, "
        f"{fmean(other):.4f} without ({loss.lower_or_higher})",
        loss,
    )


def last_phase_claim(bits: Mapping[str, Bits], claims: StatedClaims) -> Claim:
    """Judge language after the last phase, with and without replay."""
    before, after = (own[LANGUAGE_KIND] for own in list(bits[PUBLISHED].values())[1:3])
    bare = list(bits["no replay"].values())[2][LANGUAGE_KIND]
    kept = Gain.of(after, bare)
    return claims.lower(
        "replay-keeps-language",
        f"language: {fmean(before):.4f} before the last phase, {fmean(bare):.4f} after it without "
        f"replay ({Gain.of(bare, before).lower_or_higher}), {fmean(after):.4f} with "
        f"({kept.lower_or_higher} than without)",
        kept,
        Gain.of(before, bare),
    )


def order_claim(bits: Mapping[str, Bits], claims: StatedClaims) -> Claim:
    """Judge language first against the same text pooled."""
    phased, (pooled,) = list(bits[PUBLISHED].values())[1], bits["pooled"].values()
    gains = {kind: Gain.of(phased[kind], pooled[kind]) for kind in (LANGUAGE_KIND, CODE_KIND)}
    told = "; ".join(
        f"{kind} {fmean(phased[kind]):.4f} in phases, {fmean(pooled[kind]):.4f} pooled ("
        f"{gain.lower_or_higher})"
        for kind, gain in gains.items()
    )
    return claims.lower("order-balances", f"at equal text, {told}", *gains.values())


def bits_of(score: InfillingScore) -> float:
    """Return the bits per byte of the middles; infinite where none was scored."""
    found = score.as_dict()["bits_per_byte"]
    return float("inf") if found is None else found


ENDS = "Held-out bits per byte where each phase ends, mean over seeds; lower is better."
GAPS = (
    "Held-out code with a gap: bits per byte of the middle after prefix and suffix, and after the "
    "prefix alone, mean over seeds; middles that greedy decoding writes to the letter."
)


def phase_table(bits: Mapping[str, Bits]) -> Table:
    """Return a table with a row for each arm and phase."""
    rows = [
        [arm, phase, *(f"{fmean(kinds[kind]):.4f}" for kind in (LANGUAGE_KIND, CODE_KIND))]
        for arm, phases in bits.items()
        for phase, kinds in phases.items()
    ]
    return Table(["trained", "end of phase", LANGUAGE_KIND, CODE_KIND], rows)


def infilling_table(filled: Mapping[str, Sequence[InfillingScore]]) -> Table:
    """Return a table with a row for each arm."""
    rows = []
    for arm, scores in filled.items():
        figures = [score.as_dict() for score in scores]
        keys = ("bits_per_byte", "bits_per_byte_left_to_right", "exact_match")
        means = [fmean(own[key] or 0.0 for own in figures) for key in keys]
        rows.append([arm, *(f"{mean:.4f}" for mean in means)])
    return Table(["trained", "with the suffix", "prefix alone", "exact"], rows)


def mean_curve(curves: Sequence[Sequence[Validation]]) -> dict[str, list[float]]:
    """Average the bits per byte of both kinds over seeds, with the tokens of each validation."""
    found: dict[str, list[float]] = {"tokens": [each.tokens for each in curves[0]]}
    for kind in (LANGUAGE_KIND, CODE_KIND):
        found[kind] = [
            fmean(by_kind(each.bits_per_byte)[kind] for each in together)
            for together in zip(*curves, strict=True)
        ]
    return found


def curve_figure(curve: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the bits per byte of both kinds over tokens."""
    series = [
        Series(kind, curve["tokens"], curve[kind], "points") for kind in (LANGUAGE_KIND, CODE_KIND)
    ]
    return line_figure(
        "Held-out bits per byte through the phases", series, "tokens", "bits per byte"
    )


PAPER = Paper(
    name="crystal",
    folder=Path(__file__).parent,
    data=Data(RECIPE),
    stages=stages,
    measure=measure,
    judge=judge,
)
