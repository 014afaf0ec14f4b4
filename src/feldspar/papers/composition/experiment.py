"""All methods together against a plain recipe at equal FLOPs, and each method taken away once.

FLOPs are those of the sparse ledger: a sparse arm, and one that begins with short contexts, trains
on more tokens for the same FLOPs. The recipe's choices give each arm its length. The learning rates
of the plain recipe and of the composition are tuned on a seed outside those that are compared.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from feldspar.core.progress import progress
from feldspar.core.readable import with_interval
from feldspar.core.student_t import half_width
from feldspar.papers.composition.differences import Bits, document_interval, seed_bits
from feldspar.papers.composition.held_out import (
    LITTLE_CONTEXT_TOKENS,
    gap_bits,
    long_loss,
    read_held_out,
    text_bits,
    trigram_bits,
)
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain, power
from feldspar.papers.kit.paper import (
    Data,
    Figures,
    Findings,
    Paper,
    Results,
    Scale,
    Stage,
    by_value,
)
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.kit.tuned_rates import RATE, best_rate, scores_by_rate
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.report.bars import Bar, bar_figure
from feldspar.report.canvas import Figure
from feldspar.report.page import Section, Table
from feldspar.runtime.run_folder import RunFolder
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial, TrialResult
from feldspar.train.data import open_shards
from feldspar.train.load import load_run, text_model_of

SMALL, LARGE = "composition/small", "composition/paper"
SCORE = "validation/bits_per_byte"
ARM = "choose.arm"
ALL, PLAIN, PLAIN_DEDUPLICATED = "all", "plain", "plain-deduplicated"
METHODS = {
    "no-sparsity": "sparse SmuPar",
    "no-steering": "batch by noise scale",
    "no-deduplication": "deduplication",
    "no-short-context": "two contexts",
    "no-infilling": "fill-in-the-middle",
}
"""The method that each arm takes away from the composition."""
ARMS = (PLAIN, PLAIN_DEDUPLICATED, ALL, *METHODS)
TUNED = (PLAIN, ALL)
"""The arms whose rates are tuned; the first one's serves the plain arms, the other's all others."""
RATES = {Scale.QUICK: (0.016, 0.032), Scale.SMALL: (0.01, 0.02, 0.04)}
RATES_SEED = 1000
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3, Scale.PAPER: 1}
QUICK_SHARE = 0.03
"""The length of a quick run as a share of the whole one."""
TRIGRAM = "token trigram"


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the runs that tune the rates, then every arm with every seed."""
    if scale is Scale.PAPER:
        return (Stage("large", LARGE, lambda _: [trial_of({ARM: arm}, 0) for arm in TUNED], SCORE),)
    return (
        Stage("rates", SMALL, lambda _: rate_trials(scale), SCORE),
        Stage("arms", SMALL, lambda found: arm_trials(scale, found), SCORE, keeps_weights=True),
    )


def rate_trials(scale: Scale) -> list[Trial]:
    """Return every rate of the tuned arms, with a seed of their own."""
    return [
        trial_of({ARM: arm, RATE: rate}, RATES_SEED, lengths(arm, scale))
        for arm in TUNED
        for rate in RATES[scale]
    ]


def arm_trials(scale: Scale, found: Results) -> list[Trial]:
    """Return every arm with every seed, arms fastest, at the tuned rates."""
    tuned = scores_by_rate(found["rates"], ARM) if found else {}
    rates = {arm: best_rate(scores) for arm, scores in tuned.items()}
    trials = []
    for seed in range(SEEDS[scale]):
        for arm in ARMS:
            rate = rates.get(tuned_like(arm))
            tuned = [] if rate is None else [f"{RATE}={rate}"]
            trials.append(trial_of({ARM: arm}, seed, [*lengths(arm, scale), *tuned]))
    return trials


def lengths(arm: str, scale: Scale) -> list[str]:
    """Return the overrides that shorten every phase of a quick run."""
    if scale is not Scale.QUICK:
        return []
    phases = load_recipe(SMALL, [f"{ARM}={arm}"]).recipe.phases
    return [
        f"phases.{index}.length={int(float(phase.length.value) * QUICK_SHARE)} tokens"
        for index, phase in enumerate(phases)
    ]


def tuned_like(arm: str) -> str:
    """Return the arm whose rate an arm has."""
    return PLAIN if arm in (PLAIN, PLAIN_DEDUPLICATED) else ALL


def measure(results: Results, scale: Scale) -> Figures:
    """Score every run on the held-out files, and count its tokens, FLOPs and steps."""
    if scale is Scale.PAPER:
        return {}
    by_arm = by_value(results["arms"], ARM)
    shards = open_shards(load_recipe(SMALL).recipe)
    tokenizer = text_model_of(load_run(by_arm[ALL][0].folder)).tokenizer
    held_out = read_held_out(shards, tokenizer)
    figures: Figures = {
        "rates": {
            arm: {f"{rate:g}": loss for rate, loss in own.items()}
            for arm, own in scores_by_rate(results["rates"], ARM).items()
        },
        "held_out_bytes": held_out.bytes,
        "trigram": trigram_bits(shards, tokenizer, held_out),
        "text_bits": {arm: [] for arm in ARMS},
        "little_context_bits": {arm: [] for arm in ARMS},
        "gaps": {arm: [] for arm in ARMS},
        "long": {arm: [] for arm in ARMS},
        "runs": {arm: run_figures(arm, own, scale) for arm, own in by_arm.items()},
    }
    with progress("held-out files", len(results["arms"]), "models") as advance:
        for arm, runs in by_arm.items():
            for run in runs:
                trained = load_run(run.folder)
                model = text_model_of(trained)
                little = text_bits(model, held_out, LITTLE_CONTEXT_TOKENS)
                figures["text_bits"][arm].append(text_bits(model, held_out))
                figures["little_context_bits"][arm].append(seed_bits(little, held_out.bytes))
                figures["gaps"][arm].append(gap_bits(model, open_shards(trained.recipe)))
                figures["long"][arm].append(long_loss(model, held_out))
                advance(1)
    return figures


def run_figures(arm: str, runs: Sequence[TrialResult], scale: Scale) -> Figures:
    """Return tokens and ledger FLOPs of an arm, and steps and seconds of each run."""
    recipe = load_recipe(SMALL, [f"{ARM}={arm}", *lengths(arm, scale)]).recipe
    return {
        "tokens": runs[0].tokens,
        "flops": plan_recipe(recipe).summary()["flops"]["ledger"],
        "steps": [len(RunFolder(run.folder).steps()) for run in runs],
        "seconds": [run.seconds for run in runs],
    }


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and the drawing."""
    if scale is Scale.PAPER:
        return Findings((), (), None)
    bits, sizes = figures["text_bits"], figures["held_out_bytes"]
    score = {arm: [seed_bits(own, sizes) for own in runs] for arm, runs in bits.items()}
    gaps = {arm: [min(own.values()) for own in runs] for arm, runs in figures["gaps"].items()}
    judged = (
        text_claim("all-beat-plain", PLAIN, bits, sizes, claims),
        text_claim("all-beat-plain-deduplicated", PLAIN_DEDUPLICATED, bits, sizes, claims),
        *(text_claim(f"worth-{arm}", arm, bits, sizes, claims) for arm in METHODS),
        score_claim("infilling-fills-gaps", "no-infilling", gaps, "bits per byte", claims),
        score_claim("all-read-long-text", PLAIN, figures["long"], "nats per token", claims),
        trigram_claim(score[ALL], fmean(figures["trigram"].values()), claims),
        reading_claim(score, figures["little_context_bits"], claims),
    )
    figure = worth_figure(score)
    tables = (arm_table(score, gaps, figures), rate_table(figures["rates"]))
    return Findings(judged, (Section("Arms", [WORDS], list(tables), [figure]),), figure, tables)


WORDS = (
    "Held-out bits per byte, each arm at equal FLOPs by the sparse ledger; means over the seeds. "
    "Middles of gaps are scored after both sides and after the prefix alone, and the lower figure "
    "counts. Long positions are 128 to 255, in nats per token."
)


def text_claim(
    name: str,
    other: str,
    bits: Mapping[str, Sequence[Bits]],
    sizes: Mapping[str, Sequence[int]],
    claims: StatedClaims,
) -> Claim:
    """Judge the composition against another arm, over the seeds and over the held-out files."""
    own, theirs = ([seed_bits(run, sizes) for run in bits[arm]] for arm in (ALL, other))
    gain = Gain.of(own, theirs)
    low, high = document_interval(bits[ALL], bits[other], sizes)
    return claims.judged(
        name,
        f"{fmean(own):.4f} bits per byte against {fmean(theirs):.4f}: {gain.lower_or_higher}; "
        f"over the files {low:.2%} to {high:.2%}{power(gain)}",
        held=gain.exceeds(claims.limit(name, "noise")) and low > 0,
    )


def score_claim(
    name: str, other: str, scores: Mapping[str, Sequence[float]], unit: str, claims: StatedClaims
) -> Claim:
    """Judge the composition against another arm by another score."""
    own, theirs = scores[ALL], scores[other]
    gain = Gain.of(own, theirs)
    ours = f"{fmean(own):.4f} {unit} against {fmean(theirs):.4f}: {gain.lower_or_higher}"
    return claims.lower(name, ours + power(gain), gain)


def trigram_claim(own: Sequence[float], trigram: float, claims: StatedClaims) -> Claim:
    """Judge the composition against counting."""
    gain = Gain.of(own, [trigram] * len(own))
    ours = f"{fmean(own):.4f} bits per byte against {trigram:.4f}: {gain.lower_or_higher}"
    return claims.lower("all-beat-trigram", ours, gain)


def reading_claim(
    score: Mapping[str, Sequence[float]],
    little: Mapping[str, Sequence[float]],
    claims: StatedClaims,
) -> Claim:
    """Judge that each arm has a lower loss with its whole context than with a short one."""
    gains = {arm: Gain.of(score[arm], little[arm]) for arm in ARMS}
    least = min(ARMS, key=lambda arm: gains[arm].mean)
    return claims.lower(
        "the-models-read",
        f"the whole context of 256 tokens lowers the bits per byte of {least} least, by "
        f"{gains[least]}, against windows of {LITTLE_CONTEXT_TOKENS} tokens",
        *gains.values(),
    )


def arm_table(
    score: Mapping[str, Sequence[float]], gaps: Mapping[str, Sequence[float]], figures: Figures
) -> Table:
    """Return a row for each arm, and one for the trigram."""
    rows = []
    for arm in ARMS:
        run = figures["runs"][arm]
        rows.append(
            [
                arm,
                f"{run['tokens']:,}",
                f"{run['flops']:.3g}",
                f"{fmean(run['steps']):,.0f}",
                f"{fmean(run['seconds']):.0f}",
                f"{fmean(score[arm]):.4f}",
                "" if arm == ALL else Gain.of(score[arm], score[ALL]).lower_or_higher,
                f"{fmean(figures['little_context_bits'][arm]):.4f}",
                f"{fmean(gaps[arm]):.4f}",
                f"{fmean(figures['long'][arm]):.3f}",
            ]
        )
    rows.append([TRIGRAM, *[""] * 4, f"{fmean(figures['trigram'].values()):.4f}", *[""] * 4])
    heads = ["arm", "tokens", "FLOPs", "steps", "seconds", "bits per byte", "against all"]
    return Table([*heads, "with 16 tokens", "gaps", "long positions"], rows)


def rate_table(rates: Mapping[str, Mapping[str, float]]) -> Table:
    """Return the validation's bits per byte of both tuned arms by rate."""
    heads = list(next(iter(rates.values())))
    rows = [[arm, *(f"{own[rate]:.4f}" for rate in heads)] for arm, own in rates.items()]
    return Table(["learning rate tuned on another seed", *heads], rows)


def worth_figure(score: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the bits per byte that each arm loses against the composition, the plain one first."""
    names = {PLAIN: "all five: the plain recipe", PLAIN_DEDUPLICATED: "all but deduplication"}
    first = [lost_bits(name, score[arm], score[ALL], True) for arm, name in names.items()]
    methods = [lost_bits(name, score[arm], score[ALL]) for arm, name in METHODS.items()]
    methods.sort(key=lambda bar: -bar.value)
    saved = with_interval(first[0].value, first[0].half_width)
    title = f"At equal FLOPs all five methods together save {saved} bits per byte"
    label = "bits per byte lost when taken away, 95 % over seeds"
    return bar_figure(title, [*first, *methods], label, sign=True)


def lost_bits(
    name: str, other: Sequence[float], own: Sequence[float], is_reference: bool = False
) -> Bar:
    """Return the bits per byte by which ``other`` exceeds ``own``, paired by seed."""
    lost = [theirs - mine for theirs, mine in zip(other, own, strict=True)]
    return Bar(name, fmean(lost), half_width(lost), is_reference)


PAPER = Paper(
    name="composition",
    folder=Path(__file__).parent,
    data=Data(SMALL),
    more_data=(Data(SMALL, (f"{ARM}=no-deduplication",)),),
    stages=stages,
    measure=measure,
    judge=judge,
)
