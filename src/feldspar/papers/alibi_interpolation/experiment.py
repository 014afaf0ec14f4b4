"""Position interpolation for ALiBi (2310.13017): reading beyond the length trained at.

The same seeds train ALiBi and rotary positions at one length, and go on from ALiBi for a tenth of
the tokens in two ways: at twice the length with its slopes halved, and as before. Each is read at
one to eight times that length, with and without its positions scaled by that factor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from feldspar.core.progress import progress
from feldspar.evaluate.length_sweep import long_documents
from feldspar.evaluate.loss.by_position import losses_by_position
from feldspar.evaluate.loss.held_out_loss import held_out_documents, require_split
from feldspar.evaluate.text_model import TextModel
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.paper import Data, Figures, Findings, Paper, Results, Scale, Stage, by_name
from feldspar.papers.kit.stated import StatedClaims
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.position_scaling import (
    LinearScaling,
    NoScaling,
    NtkScaling,
    PositionScaling,
)
from feldspar.report.figures import Figure, Series, line_figure
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial
from feldspar.train.data import open_shards
from feldspar.train.load import load_run, text_model_of

SPLIT = "test"
DOCUMENTS = 96
REACHES = (1, 2, 4, 8)
"""Lengths read, as multiples of the length trained at."""
SHORT, NONE, LINEAR, NTK, TRAINED = "short", "none", "linear", "ntk", "as trained"
"""``short``: the same tokens in windows of the length trained at; else how positions are scaled."""

Losses = dict[str, dict[int, list[float]]]
"""Nats per token of each seed, by scaling and by reach."""

SMALL, LARGE = "alibi-interpolation/small", "alibi-interpolation/paper"
SCORE = "validation/loss"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3, Scale.PAPER: 1}
QUICK_STEPS = (60, 10)
"""Steps of pre-training and of what follows it in a quick run."""


@dataclass(frozen=True)
class Arm:
    """A model by its choices, and the scalings of positions that it is read with."""

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
    """Return every arm; at the paper's scale only the arms of its recipe."""
    recipe = LARGE if scale is Scale.PAPER else SMALL
    return (Stage("lengths", recipe, lambda _: trials(scale), SCORE, keeps_weights=True),)


def arms(scale: Scale) -> dict[str, Arm]:
    """Return the arms of a scale."""
    kept = ("alibi", "fine-tuned") if scale is Scale.PAPER else tuple(ARMS)
    return {name: ARMS[name] for name in kept}


def trials(scale: Scale) -> list[Trial]:
    """Return every arm with every seed, seeds fastest."""
    return [
        trial_of(choices(arm, scale), seed, shortened(arm) if scale is Scale.QUICK else [])
        for arm in arms(scale).values()
        for seed in range(SEEDS[scale])
    ]


def choices(arm: Arm, scale: Scale) -> dict[str, str]:
    """Return the overrides that train an arm."""
    training = {"choose.training": arm.training}
    return training if scale is Scale.PAPER else {"choose.positions": arm.positions} | training


def shortened(arm: Arm) -> list[str]:
    """Return the overrides of a quick run."""
    phases = 1 if arm.training == "none" else 2
    return [
        f"phases.{index}.length={steps} steps" for index, steps in enumerate(QUICK_STEPS[:phases])
    ]


def trained_length(scale: Scale) -> int:
    """Return the tokens of a window that the models were trained at."""
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


def losses_beyond(runs: Sequence[Path], train_length: int, scalings: Sequence[str]) -> Losses:
    """Return each run's ``loss_at_reach`` on held-out documents of its shards.

    Raises UserError where no document is long enough.
    """
    found: Losses = {name: {reach: [] for reach in REACHES} for name in (SHORT, *scalings)}
    with progress("reading beyond", len(runs), "models") as advance:
        for folder in runs:
            run = load_run(folder)
            model = text_model_of(run)
            shards = open_shards(run.recipe)
            held_out = [
                document
                for name in require_split(shards, SPLIT)
                for document in held_out_documents(shards, SPLIT, name, model.tokenizer).tokens
            ]
            chosen = long_documents(held_out, train_length * max(REACHES), DOCUMENTS)
            for name, by_reach in found.items():
                for reach, losses in by_reach.items():
                    losses.append(loss_at_reach(model, name, chosen, reach, train_length))
            advance(1)
    return found


def loss_at_reach(
    model: TextModel, name: str, documents: Sequence[np.ndarray], reach: int, train_length: int
) -> float:
    """Return the mean loss at the last ``train_length`` / 2 of ``reach`` x ``train_length`` tokens.

    They are the same tokens whatever the scaling ``name``; ``short`` reads only the window of
    ``train_length`` that ends with them. The model's own scaling is left as it was.
    """
    length = reach * train_length
    window = train_length if name == SHORT else length
    pieces = [document[length - window : length] for document in documents]
    trained = model.decoder.position_scaling
    model.decoder.scale_positions(scaling_for(name, reach, trained))
    try:
        return float(losses_by_position(model, pieces, window)[:, -(train_length // 2) :].mean())
    finally:
        model.decoder.scale_positions(trained)


def scaling_for(name: str, reach: int, trained: PositionScaling) -> PositionScaling:
    """Return a scaling by the reach: the length read over the length trained at."""
    if name == TRAINED:
        return trained
    if name in (SHORT, NONE) or reach == 1:
        return NoScaling()
    if name == LINEAR:
        return LinearScaling(type="linear", factor=reach)
    return NtkScaling(type="ntk", factor=reach)


def rows_of(found: Mapping[str, Losses]) -> list[list[str]]:
    """Return a row for each arm and scaling: means over seeds."""
    return [
        [arm, name, *(f"{sum(own) / len(own):.4f}" for own in by_reach.values())]
        for arm, losses in found.items()
        for name, by_reach in losses.items()
    ]


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
    alibi = measured["alibi"]
    gain = Gain.of(alibi[LINEAR][2], alibi[NONE][2])
    return claims.lower(
        "twice-as-far-without-training",
        f"at 2x: {fmean(alibi[LINEAR][2]):.4f} with slopes divided, "
        f"{fmean(alibi[NONE][2]):.4f} as trained ({gain.lower_or_higher}); in short "
        f"windows {fmean(alibi[SHORT][2]):.4f}",
        gain,
    )


def fine_tuned_claim(measured: Measured, claims: StatedClaims) -> Claim:
    """Judge a short fine-tuning at factor 2 against as many tokens without."""
    control = measured.get("continued", measured["alibi"])
    tuned = measured["fine-tuned"][TRAINED]
    gains = {reach: Gain.of(tuned[reach], control[NONE][reach]) for reach in (2, 4)}
    told = "; ".join(
        f"at {reach}x {fmean(tuned[reach]):.4f}, {fmean(control[NONE][reach]):.4f} for as many "
        f"tokens more without ({gain.lower_or_higher})"
        for reach, gain in gains.items()
    )
    return claims.lower(
        "fine-tuned-reads-farther",
        f"nats per token after a tenth more tokens at factor 2, {told}",
        *gains.values(),
    )


def reach_figure(measured: Measured, length: int) -> Figure:
    """Draw the loss over the length read, mean over seeds."""
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
