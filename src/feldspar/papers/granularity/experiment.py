"""The cost of blocks in masks, and masks that move (RigL, 1911.11134; SET) against static ones.

All arms read the same text with the same seeds for the same number of steps. A dense model, and
narrow and shallow dense models with as many block weights as the masks leave, stand beside them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, quantiles

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
from feldspar.papers.kit.text_baselines import text_baselines
from feldspar.plan.summary import non_embedding_parameters, plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.report.bars import Bar, bar_figure, grouped_bar_figure
from feldspar.report.canvas import Figure
from feldspar.report.page import Section, Table
from feldspar.runtime.run_folder import RunFolder
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial, TrialResult

SMALL, LARGE = "granularity/small", "granularity/paper"
SCORE = "validation/bits_per_byte"
ARM = "choose.arm"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 5, Scale.PAPER: 1}
QUICK_STEPS = 40

DENSE, STATIC, SET, RIGL = "dense", "90-static", "90-set", "90-rigl"
NARROW_90 = "90-narrow-dense"
SHAPES = ("1x1", "4x1", "4x4")
"""Blocks as outputs x inputs."""
SMALL_DENSE = ("narrow-dense", "shallow-dense")
"""Dense models with as many weights in their blocks as the masks of a sparsity leave."""
LEVELS = ("75", "87.5")
"""Sparsities in per cent at which blocks are compared."""
ARMS = (
    DENSE,
    *(f"{level}-{kind}" for level in LEVELS for kind in (*SHAPES, *SMALL_DENSE)),
    STATIC,
    SET,
    RIGL,
    NARROW_90,
)
"""Every arm, by its name among the recipe's choices."""
REFERENCES = {
    f"{level}-{kind}": f"{level}-{SHAPES[0]}"
    for level in LEVELS
    for kind in (*SHAPES[1:], *SMALL_DENSE)
} | {SET: STATIC, RIGL: STATIC, NARROW_90: STATIC}
"""The arm with a static mask of single entries that an arm is compared with."""

BySeed = Mapping[str, Sequence[float]]
"""A figure of each seed, by arm."""


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return every arm with every seed."""
    if scale is Scale.PAPER:
        return (Stage("large", LARGE, lambda _: trials(scale), SCORE),)
    return (Stage("arms", SMALL, lambda _: trials(scale), SCORE),)


def trials(scale: Scale) -> list[Trial]:
    """Return every arm with every seed, arms fastest: a busy hour then slows all arms alike."""
    return [
        trial_of({ARM: arm}, seed, shortened(scale)) for seed in range(SEEDS[scale]) for arm in ARMS
    ]


def shortened(scale: Scale) -> tuple[str, ...]:
    """Return the override that shortens the runs of a quick experiment."""
    return (f"phases.0.length={QUICK_STEPS} steps",) if scale is Scale.QUICK else ()


def measure(results: Results, scale: Scale) -> Figures:
    """Read losses and speeds of every run, and count the weights of every arm."""
    [(stage, runs)] = results.items()
    recipe = LARGE if stage == "large" else SMALL
    by_arm = by_value(runs, ARM)
    return {
        "bits_per_byte": {arm: [run.score for run in own] for arm, own in by_arm.items()},
        "tokens_per_second": {arm: list(map(fast_tenth, own)) for arm, own in by_arm.items()},
        "weights": {arm: weights_of(recipe, arm) for arm in ARMS},
        "baselines": {} if scale is Scale.PAPER else text_baselines(recipe, shortened(scale)),
    }


def fast_tenth(run: TrialResult) -> float:
    """Return the tokens per second that a tenth of the run's steps exceed.

    Other work on the machine makes steps slower and never faster, so the fast steps are those that
    it disturbed least.
    """
    speeds = [step["tokens_per_second"] for step in RunFolder(run.folder).steps()]
    return quantiles(speeds, n=10)[-1]


def weights_of(recipe: str, arm: str) -> int:
    """Return the parameters outside embeddings that an arm trains; masked entries do not count."""
    plan = plan_recipe(load_recipe(recipe, [f"{ARM}={arm}"]).recipe)
    masked = plan.shapes.parameters - plan.active_parameters(0)
    return non_embedding_parameters(plan.shapes) - masked


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, the table of arms and the drawings."""
    bits, speeds = figures["bits_per_byte"], figures["tokens_per_second"]
    judged = (
        *(block_claim(level, shape, bits, claims) for level in LEVELS for shape in SHAPES[1:]),
        *(small_dense_claim(level, bits, claims) for level in LEVELS),
        moving_claim("rigl-beats-static", RIGL, STATIC, bits, claims),
        moving_claim("set-beats-static", SET, STATIC, bits, claims),
        moving_claim("rigl-beats-set", RIGL, SET, bits, claims),
        moving_claim("rigl-beats-narrow-dense", RIGL, NARROW_90, bits, claims),
        speed_claim(speeds, claims),
    )
    words = [
        (
            "Held-out bits per byte at the end of training, means over the seeds. Differences are "
            "paired by seed. Parameters are those outside embeddings, without masked entries."
        ),
        (
            "The speed of a run is what the fastest tenth of its steps exceed, because the machine "
            "also did other work. The table shows the median over the seeds."
        ),
    ]
    table = arm_table(bits, speeds, figures["weights"], figures["baselines"])
    figure = block_figure(bits)
    section = Section("Arms", words, [table], [figure, moving_figure(bits)])
    return Findings(judged, (section,), figure, (table,))


def block_claim(level: str, shape: str, bits: BySeed, claims: StatedClaims) -> Claim:
    """Judge what masks in blocks cost against masks of single entries."""
    single, blocks = f"{level}-{SHAPES[0]}", f"{level}-{shape}"
    gain = Gain.of(bits[blocks], bits[single])
    return claims.kept(
        f"blocks-{shape}-at-{level}",
        f"{fmean(bits[blocks]):.4f} bits per byte in blocks of {shape}, {fmean(bits[single]):.4f} "
        f"in single entries: {gain.lower_or_higher}{power(gain)}; dense {fmean(bits[DENSE]):.4f}",
        gain,
    )


def small_dense_claim(level: str, bits: BySeed, claims: StatedClaims) -> Claim:
    """Judge sparse models against a narrow and a shallow dense one with as many block weights."""
    gains, told = [], []
    for kind in SMALL_DENSE:
        small = bits[f"{level}-{kind}"]
        own = {shape: Gain.of(bits[f"{level}-{shape}"], small) for shape in SHAPES}
        words = ", ".join(f"{shape} {gain.lower_or_higher}" for shape, gain in own.items())
        told.append(f"{kind.replace('-', ' ')} {fmean(small):.4f} bits per byte, {words}")
        gains += own.values()
    return claims.lower(f"masks-beat-small-dense-at-{level}", "; ".join(told), *gains)


def moving_claim(name: str, arm: str, other: str, bits: BySeed, claims: StatedClaims) -> Claim:
    """Judge masks that move against another arm."""
    gain = Gain.of(bits[arm], bits[other])
    return claims.lower(
        name,
        f"{fmean(bits[arm]):.4f} bits per byte against {fmean(bits[other]):.4f}: "
        f"{gain.lower_or_higher}{power(gain)}; dense {fmean(bits[DENSE]):.4f}",
        gain,
    )


def speed_claim(speeds: BySeed, claims: StatedClaims) -> Claim:
    """Judge the time of a token with masks in blocks of 4 x 1 at 75 % sparsity, against dense."""
    seconds = {arm: [1 / speed for speed in speeds[arm]] for arm in (DENSE, f"{LEVELS[0]}-4x1")}
    dense, blocks = seconds.values()
    gain = Gain.of(blocks, dense)
    return claims.lower(
        "blocks-save-time",
        f"{1 / fmean(blocks):,.0f} tokens per second against {1 / fmean(dense):,.0f}: time of a "
        f"token {gain.lower_or_higher}",
        gain,
    )


def arm_table(
    bits: BySeed,
    speeds: BySeed,
    weights: Mapping[str, int],
    baselines: Mapping[str, float],
) -> Table:
    """Return a row for each arm, with weights, loss, differences and speed, and the baselines."""
    rows = []
    for arm in ARMS:
        reference = REFERENCES.get(arm)
        rows.append(
            [
                arm,
                f"{weights[arm]:,}",
                f"{fmean(bits[arm]):.4f}",
                "" if arm == DENSE else against(bits, arm, DENSE),
                "" if reference is None else against(bits, arm, reference),
                f"{median(speeds[arm]):,.0f}",
                f"{median(speeds[arm]) / median(speeds[DENSE]):.2f}",
            ]
        )
    rows += [
        [f"no model: {name}", "", f"{value:.4f}", "", "", "", ""]
        for name, value in baselines.items()
    ]
    heads = ["arm", "parameters", "bits per byte", "against dense"]
    return Table([*heads, "against static 1x1", "tokens per second", "times dense"], rows)


def against(bits: BySeed, arm: str, other: str) -> str:
    """Word the paired difference of two arms."""
    return Gain.of(bits[arm], bits[other]).lower_or_higher


def excess(bits: BySeed, arm: str) -> float:
    """Return the per cent by which an arm's bits per byte exceed dense, on average."""
    return -100 * Gain.of(bits[arm], bits[DENSE]).mean


def block_figure(bits: BySeed) -> Figure:
    """Draw what blocks and the narrow dense model cost against dense, at both sparsities."""
    kinds = {kind: f"masks {kind}" for kind in SHAPES}
    kinds |= {kind: kind.replace("-", " ") for kind in SMALL_DENSE}
    gains = {
        label: {
            f"{level} % sparse": Gain.of(bits[f"{level}-{kind}"], bits[DENSE]) for level in LEVELS
        }
        for kind, label in kinds.items()
    }
    groups = {
        label: {level: -100 * gain.mean for level, gain in own.items()}
        for label, own in gains.items()
    }
    halves = {
        label: {level: 100 * (gain.half_width or 0.0) for level, gain in own.items()}
        for label, own in gains.items()
    }
    most = f"{LEVELS[-1]} % sparse"
    told = ", ".join(f"{label} {own[most]:.1f} %" for label, own in groups.items())
    title = f"Bits per byte above dense where weights are {most}: {told}"
    return grouped_bar_figure(title, groups, "% more bits per byte than dense", halves)


def moving_figure(bits: BySeed) -> Figure:
    """Draw what static and moving masks cost against dense."""
    bars = [
        Bar(
            arm.removeprefix("90-").replace("-", " "),
            excess(bits, arm),
            100 * (Gain.of(bits[arm], bits[DENSE]).half_width or 0.0),
            arm == NARROW_90,
        )
        for arm in (STATIC, SET, RIGL, NARROW_90)
    ]
    return bar_figure("Masks that move, 90 % sparse", bars, "% more bits per byte than dense")


PAPER = Paper(
    name="granularity",
    folder=Path(__file__).parent,
    data=Data(SMALL),
    stages=stages,
    measure=measure,
    judge=judge,
)
