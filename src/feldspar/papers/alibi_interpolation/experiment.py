"""Position interpolation for ALiBi (2310.13017): reading beyond the length trained at.

The same seeds train ALiBi and rotary positions at one length, and go on from ALiBi for a tenth of
the tokens in two ways: at twice the length with its slopes halved, and as before. Each is read at
one to eight times that length, with and without its positions scaled by that factor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from feldspar.papers.alibi_interpolation.beyond_training import (
    LINEAR,
    NONE,
    NTK,
    REACHES,
    SHORT,
    TRAINED,
    Losses,
    losses_beyond,
    rows_of,
)
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.paper import Data, Figures, Findings, Paper, Results, Scale, Stage, by_name
from feldspar.papers.kit.stated import StatedClaims
from feldspar.recipe.load import load_recipe
from feldspar.report.figures import Figure, Series, line_figure
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial

SMALL, LARGE = "alibi-interpolation/small", "alibi-interpolation/paper"
SCORE = "validation/loss"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3, Scale.PAPER: 1}
QUICK_STEPS = (60, 10)
"""Steps of pre-training and of what follows it in a quick run."""


@dataclass(frozen=True)
class Arm:
    """What is trained, by its choices, and how its positions are scaled where it is read."""

    positions: str
    training: str
    scalings: tuple[str, ...]


ARMS = {
    "alibi": Arm("alibi", "none", (NONE, LINEAR, NTK)),
    "rotary": Arm("rotary", "none", (NONE, LINEAR, NTK)),
    "continued": Arm("alibi", "continued", (NONE, LINEAR)),
    "fine-tuned": Arm("alibi", "fine-tuned", (TRAINED,)),
}
Measured = Mapping[str, Losses]


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Every arm; at the paper's scale only that its recipe trains."""
    recipe = LARGE if scale is Scale.PAPER else SMALL
    return (Stage("lengths", recipe, lambda _: trials(scale), SCORE, keeps_weights=True),)


def arms(scale: Scale) -> dict[str, Arm]:
    """The arms of a scale."""
    kept = ("alibi", "fine-tuned") if scale is Scale.PAPER else tuple(ARMS)
    return {name: ARMS[name] for name in kept}


def trials(scale: Scale) -> list[Trial]:
    """Every arm with every seed, seeds fastest."""
    return [
        trial_of(choices(arm, scale), seed, shortened(arm) if scale is Scale.QUICK else [])
        for arm in arms(scale).values()
        for seed in range(SEEDS[scale])
    ]


def choices(arm: Arm, scale: Scale) -> dict[str, str]:
    """The overrides that train an arm."""
    training = {"choose.training": arm.training}
    return training if scale is Scale.PAPER else {"choose.positions": arm.positions} | training


def shortened(arm: Arm) -> list[str]:
    """What makes a run a quick one."""
    phases = 1 if arm.training == "none" else 2
    return [
        f"phases.{index}.length={steps} steps" for index, steps in enumerate(QUICK_STEPS[:phases])
    ]


def trained_length(scale: Scale) -> int:
    """The tokens of a window that the models were trained at."""
    recipe = load_recipe(LARGE if scale is Scale.PAPER else SMALL).recipe
    return recipe.context_length(recipe.phases[0])


def measure(results: Results, scale: Scale) -> Figures:
    """Read the losses of every arm beyond the length that it was trained at."""
    length = trained_length(scale)
    runs = by_name(results["lengths"], tuple(arms(scale)))
    losses = {
        name: losses_beyond([run.folder for run in runs[name]], length, arm.scalings)
        for name, arm in arms(scale).items()
    }
    return {"losses": losses}


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, the table of losses and the drawing."""
    length = trained_length(scale)
    measured: Measured = {
        arm: {
            name: {int(reach): own for reach, own in by_reach.items()}
            for name, by_reach in losses.items()
        }
        for arm, losses in figures["losses"].items()
    }
    judged = [zero_shot_claim(measured, claims), fine_tuned_claim(measured, claims)]
    if "rotary" in measured:
        judged.append(extrapolation_claim(measured, claims))
    figure = reach_figure(measured, length)
    header = ["trained", "scaled by what is read", *(f"{reach}x" for reach in REACHES)]
    words = (
        f"Held-out nats per token at the last {length // 2} positions of windows of so many times "
        f"the {length} tokens trained at, mean over seeds; short: of the same tokens, read in "
        f"windows of {length}."
    )
    section = Section("Reading beyond", [words], [Table(header, rows_of(measured))], [figure])
    return Findings(tuple(judged), (section,), figure)


def extrapolation_claim(measured: Measured, claims: StatedClaims) -> Claim:
    """Judge plain ALiBi beside rotary positions at eight times the length."""
    name = "alibi-reads-on"
    own = {arm: measured[arm] for arm in ("alibi", "rotary")}
    gains = {arm: Gain.of(losses[NONE][8], losses[SHORT][8]) for arm, losses in own.items()}
    told = "; ".join(
        f"{arm} {fmean(losses[SHORT][8]):.4f} in short windows, {fmean(losses[NONE][8]):.4f} "
        f"({gains[arm].lower_or_higher})"
        for arm, losses in own.items()
    )
    margin = claims.limit(name, "margin")
    return claims.judged(
        name,
        f"nats per token of the same text, read at once at 8x: {told}",
        held=gains["alibi"].is_at_least(-margin) and gains["rotary"].high < -margin,
    )


def zero_shot_claim(measured: Measured, claims: StatedClaims) -> Claim:
    """Judge slopes divided by two at twice the length, without training."""
    name = "twice-as-far-without-training"
    alibi = measured["alibi"]
    gain = Gain.of(alibi[LINEAR][2], alibi[NONE][2])
    return claims.judged(
        name,
        f"at 2x: {fmean(alibi[LINEAR][2]):.4f} with slopes divided, "
        f"{fmean(alibi[NONE][2]):.4f} as trained ({gain.lower_or_higher}); in short "
        f"windows {fmean(alibi[SHORT][2]):.4f}",
        held=gain.exceeds(claims.limit(name, "noise")),
    )


def fine_tuned_claim(measured: Measured, claims: StatedClaims) -> Claim:
    """Judge a short fine-tuning at factor 2 against as many tokens without."""
    name = "fine-tuned-reads-farther"
    control = measured.get("continued", measured["alibi"])
    tuned = measured["fine-tuned"][TRAINED]
    gains = {reach: Gain.of(tuned[reach], control[NONE][reach]) for reach in (2, 4)}
    told = "; ".join(
        f"at {reach}x {fmean(tuned[reach]):.4f}, {fmean(control[NONE][reach]):.4f} for as many "
        f"tokens more without ({gain.lower_or_higher})"
        for reach, gain in gains.items()
    )
    held = all(gain.exceeds(claims.limit(name, "noise")) for gain in gains.values())
    return claims.judged(
        name, f"nats per token after a tenth more tokens at factor 2, {told}", held=held
    )


def reach_figure(measured: Measured, length: int) -> Figure:
    """Loss over the length read, mean over seeds."""
    lines = [
        Series(
            f"{arm}, {name}",
            [reach * length for reach in losses],
            [fmean(own) for own in losses.values()],
            "points",
        )
        for arm, scalings in measured.items()
        for name, losses in scalings.items()
    ]
    return line_figure(
        "Loss at the end of windows longer than those trained on",
        lines,
        "tokens read",
        "nats per token",
        log_x=True,
    )


PAPER = Paper(
    name="alibi-interpolation",
    folder=Path(__file__).parent,
    data=Data(SMALL),
    stages=stages,
    measure=measure,
    judge=judge,
)
