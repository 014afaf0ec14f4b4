"""Two context lengths in one run: what the second phase brings, and how the run goes through it.

The same seeds are trained for the same tokens with the short context alone, and with the long one
for the last quarter. A third of their text has to be recalled from earlier text.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import numpy as np

from feldspar.core.progress import progress
from feldspar.evaluate.loss.training_validation import held_out_sources
from feldspar.papers.btlm.phase_switch import Switch, phase_switch
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain, power
from feldspar.papers.kit.paper import Figures, Scale
from feldspar.papers.kit.recall import recall_documents, recall_in
from feldspar.papers.kit.stated import StatedClaims
from feldspar.report.canvas import Figure
from feldspar.report.figures import Series, half_widths_of, line_figure
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial
from feldspar.train.data import open_shards
from feldspar.train.load import load_run, text_model_of

CONTEXTS = "btlm/contexts"
TWO_PHASE, SHORT = "two-phase", "short"
ARMS = (TWO_PHASE, SHORT)
SEEDS = {Scale.QUICK: range(1, 2), Scale.SMALL: range(1, 6)}
"""Seed 0 is left out: shape and rates were chosen by it."""
QUICK_STEPS = {SHORT: 30, "long": 10}
"""Steps of the two phases of a quick run."""

SHORT_TOKENS, LONG_TOKENS = 128, 512
"""The contexts of the two phases."""
BANDS = tuple(itertools.pairwise((0, SHORT_TOKENS // 2, SHORT_TOKENS, 2 * SHORT_TOKENS, 512)))
"""Distances of recall in windows of the long context."""
WITHIN, BEYOND = "within", "beyond"
"""Distances up to the short context, in windows of its length, and beyond it up to the long one."""
PAPER_BEYOND = 1.25
"""Share of the trained context up to which the paper's model stays good: 10k of 8k tokens."""
MEASURED_TOKENS = round(PAPER_BEYOND * LONG_TOKENS)
BIN_TOKENS = 32
WINDOWS = 32
"""Held-out windows of each source that loss by position is measured on."""
MICRO_BATCH_TOKENS = 8192
"""Tokens of a forward pass that measures loss by position."""

Curves = Mapping[str, Sequence[Sequence[float]]]
"""Loss of each seed in bins of ``BIN_TOKENS`` positions, by the name of what was trained."""
Recalled = Mapping[str, Mapping[str, Sequence[float]]]
"""Share of values that each seed recalls, by the name of what was trained and the distances."""


def context_trials(scale: Scale) -> list[Trial]:
    """Return the two-phase run and the run of the first context alone, seeds fastest."""
    short, long = QUICK_STEPS[SHORT], QUICK_STEPS["long"]
    shortened = {
        TWO_PHASE: [f"phases.0.length={short} steps", f"phases.1.length={long} steps"],
        SHORT: [f"phases.0.length={short + long} steps"],
    }
    return [
        trial_of({"choose.context": name}, seed, shortened[name] if scale is Scale.QUICK else [])
        for name in ARMS
        for seed in SEEDS[scale]
    ]


def measure_contexts(runs: Mapping[str, Sequence[Path]], scale: Scale) -> Figures:
    """Read the switches of context, the losses by position, and recall of small models."""
    is_paper = scale is Scale.PAPER
    limit = 16 * MEASURED_TOKENS if is_paper else MEASURED_TOKENS
    found: Figures = {
        "switches": [asdict(phase_switch(folder)) for folder in runs[TWO_PHASE]],
        "bin_tokens": BIN_TOKENS,
        "loss_by_position": {name: [] for name in runs},
    }
    with progress("loss by position", sum(map(len, runs.values())), "models") as advance:
        for name, folders in runs.items():
            for folder in folders:
                curve = binned(loss_by_position(folder, limit, WINDOWS)).tolist()
                found["loss_by_position"][name].append(curve)
                advance(1)
    if not is_paper:
        found["recall"] = {name: recall_of(folders) for name, folders in runs.items()}
    return found


def recall_of(runs: Sequence[Path]) -> dict[str, list[float]]:
    """Return the shares of values that each run recalls, by distance."""
    shares: dict[str, list[float]] = {name: [] for name in (WITHIN, BEYOND, *map(band_name, BANDS))}
    for folder in runs:
        model = text_model_of(load_run(folder))
        near = recall_in(model, recall_documents(model, SHORT_TOKENS), [(0, SHORT_TOKENS)])
        beyond = (SHORT_TOKENS, LONG_TOKENS)
        far = recall_in(model, recall_documents(model, LONG_TOKENS), [beyond, *BANDS])
        for own, found in zip(shares.values(), [*near, *far], strict=True):
            own.append(found.share)
    return shares


def band_name(band: tuple[int, int]) -> str:
    """Return the name of some distances in figures and tables."""
    return f"{band[0] + 1} to {band[1]}"


def loss_by_position(run: Path, length_tokens: int, sequences: int) -> np.ndarray:
    """Return a finished run's mean loss at each of ``length_tokens`` positions, nats per token.

    The windows are ``sequences`` of each held-out source, the same for every run of the same
    shards; sources count alike. Raises UserError where there is no run or no held-out text.
    """
    trained = load_run(run)
    shards = open_shards(trained.recipe)
    sources = held_out_sources(shards, "all", sequences, length_tokens, seed=0)
    means = np.zeros((len(sources), length_tokens))
    for row, source in enumerate(sources):
        for piece in source.tokens.split(max(1, MICRO_BATCH_TOKENS // length_tokens)):
            losses = trained.decoder.token_losses(
                piece[:, :-1], piece[:, 1:], n_real_vocab=shards.vocab_size
            )
            means[row] += losses.double().sum(0).numpy()
        means[row] /= len(source.tokens)
    return means.mean(axis=0)


def binned(curve: np.ndarray) -> np.ndarray:
    """Return a curve of losses as means of ``BIN_TOKENS`` positions."""
    return curve.reshape(-1, BIN_TOKENS).mean(axis=1)


def context_claims(figures: Figures, claims: StatedClaims) -> list[Claim]:
    """Judge the three claims on contexts; without recall, as at the paper's scale, the switch."""
    judged = [switch_claim(switches_of(figures), claims)]
    if "recall" in figures:
        judged.append(long_context_claim(figures["recall"], claims))
        judged.append(beyond_training_claim(figures["loss_by_position"], claims))
    return judged


def switches_of(figures: Figures) -> list[Switch]:
    """Read the recorded switch of each seed."""
    return [Switch.from_dict(own) for own in figures["switches"]]


def context_section(figures: Figures, figure: Figure) -> Section:
    """Return the tables of the switch and of recall, with the drawing."""
    tables = [switch_table(switches_of(figures))]
    words = []
    if "recall" in figures:
        tables.append(recall_table(figures["recall"]))
        words.append(
            f"Share of values recalled by distance in tokens, in windows of {LONG_TOKENS}, mean "
            "over seeds; chance is 10 %."
        )
    return Section("Context schedule", words, tables, [figure])


def switch_claim(switches: Sequence[Switch], claims: StatedClaims) -> Claim:
    """Judge that only context and sequences change where the phases meet."""
    name = "one-schedule-over-two-contexts"
    first = switches[0]
    before, after = first.learning_rates
    line = claims.limit(name, "line")
    return claims.judged(
        name,
        f"base rate {before:.4e} before and {after:.4e} after step {first.step:,}, "
        f"{max(switch.off_the_line for switch in switches):.1e} off the line; "
        f"{first.tokens_per_step[0]:,} tokens a step on both sides; the state counts "
        f"{first.updates:,} updates in {first.steps:,} steps; training loss "
        f"{first.losses[0]:.3f} in the steps before, {first.losses[1]:.3f} after; gradient norm "
        f"{first.gradient_norms[0]:.2f}, {first.gradient_norms[1]:.2f}",
        held=all(switch.is_continuous(line) for switch in switches),
    )


def long_context_claim(recall: Recalled, claims: StatedClaims) -> Claim:
    """Judge the recall that the second phase brings beyond the first context."""
    name = "second-phase-serves-long-positions"
    two, short = recall[TWO_PHASE], recall[SHORT]
    more = Gain.of_shares(two[BEYOND], short[BEYOND])
    learnt = fmean(short[WITHIN]) >= claims.limit(name, "learnt")
    return claims.judged(
        name,
        f"values recalled from {SHORT_TOKENS + 1} to {LONG_TOKENS} tokens back: "
        f"{fmean(two[BEYOND]):.1%} after two phases, {fmean(short[BEYOND]):.1%} after the short "
        f"context alone: {more.worded('more', 'fewer')} of all{power(more)}; within "
        f"{SHORT_TOKENS} tokens {fmean(two[WITHIN]):.1%} and {fmean(short[WITHIN]):.1%}",
        held=learnt and more.exceeds(claims.limit(name, "points")),
        reading="" if learnt else "unlearnt",
    )


def beyond_training_claim(curves: Curves, claims: StatedClaims) -> Claim:
    """Judge the loss at positions beyond the second context."""
    inside = means(curves[TWO_PHASE], slice(LONG_TOKENS * 3 // 4, LONG_TOKENS))
    beyond = means(curves[TWO_PHASE], slice(LONG_TOKENS, MEASURED_TOKENS))
    lost = Gain.of(beyond, inside)
    return claims.kept(
        "stays-good-beyond-training",
        f"loss at the {MEASURED_TOKENS - LONG_TOKENS} positions beyond {LONG_TOKENS}: "
        f"{fmean(beyond):.4f}; at the last quarter within: {fmean(inside):.4f} "
        f"({lost.lower_or_higher} beyond)",
        lost,
    )


def means(curves: Sequence[Sequence[float]], positions: slice) -> list[float]:
    """Return each seed's mean loss over some positions, which begin and end where bins do."""
    bins = slice(positions.start // BIN_TOKENS, positions.stop // BIN_TOKENS)
    return [fmean(curve[bins]) for curve in curves]


def switch_table(switches: Sequence[Switch]) -> Table:
    """Return a table with a row for each run."""
    return Table(
        ["switch of context", "step", "rate before", "rate after", "loss before", "loss after"],
        [
            [
                f"run {number}",
                f"{switch.step:,}",
                *(f"{rate:.4e}" for rate in switch.learning_rates),
                *(f"{loss:.3f}" for loss in switch.losses),
            ]
            for number, switch in enumerate(switches, 1)
        ],
    )


def recall_table(recall: Recalled) -> Table:
    """Return a table of shares recalled, mean over seeds, by distance."""
    names = [*map(band_name, BANDS)]
    rows = [
        [LABELS[arm], *(f"{fmean(own[name]):.1%}" for name in names)] for arm, own in recall.items()
    ]
    return Table(["trained at", *names], rows)


def position_figure(curves: Curves) -> Figure:
    """Draw the loss over position, mean over seeds with its interval."""
    lines, ends = [], []
    for name, own in curves.items():
        by_place = list(zip(*own, strict=True))
        losses = [fmean(values) for values in by_place]
        places = [(index + 0.5) * BIN_TOKENS for index in range(len(losses))]
        label = f"trained at {LABELS[name]}"
        halves = half_widths_of(by_place)
        is_reference = name == SHORT
        lines.append(Series(label, places, losses, "points", halves, is_reference))
        beyond = [loss for place, loss in zip(places, losses, strict=True) if place > LONG_TOKENS]
        ends.append(f"{fmean(beyond or losses[-1:]):.3g} if {label}")
    title = f"Beyond position {LONG_TOKENS}, nats per byte: {'; '.join(ends)}"
    return line_figure(title, lines, "position in bytes", "nats per byte, 95 % over seeds")


LABELS = {TWO_PHASE: f"{SHORT_TOKENS}, then {LONG_TOKENS}", SHORT: f"{SHORT_TOKENS} only"}
