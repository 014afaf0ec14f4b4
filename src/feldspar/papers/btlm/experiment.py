"""BTLM-3B-8K (2309.11568): single changes to the Cerebras-GPT recipe, and two context lengths.

The ladder trains the same seeds with each change alone and with one more at a time, all at the
longer context. Beside it stand the two-phase run, and one that keeps the first phase's context.
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
from feldspar.papers.kit.gain import Gain, ladder_table
from feldspar.papers.kit.paper import Data, Figures, Findings, Paper, Results, Scale, Stage, by_name
from feldspar.papers.kit.stated import StatedClaims
from feldspar.report.figures import Figure, Series, line_figure
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial
from feldspar.train.data import open_shards
from feldspar.train.load import load_run

RECIPE = "btlm/small"
SCORE = "validation/loss"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3}
QUICK_STEPS = {"short": 60, "long": 20}
"""Steps of the two phases of a quick run."""

FEED_FORWARD, POSITIONS, DECAY = "choose.feed_forward", "choose.positions", "choose.decay"
OLD = {FEED_FORWARD: "gelu", POSITIONS: "learned", DECAY: "tenth"}
NEW = {FEED_FORWARD: "swiglu", POSITIONS: "alibi", DECAY: "deep"}
CHANGES = {"swiglu": FEED_FORWARD, "alibi": POSITIONS, "decay": DECAY}
LADDER: dict[str, dict[str, str]] = {
    "base": OLD,
    **{name: OLD | {key: NEW[key]} for name, key in CHANGES.items()},
    "swiglu+alibi": OLD | {key: NEW[key] for key in (FEED_FORWARD, POSITIONS)},
    "all": NEW,
}
"""Each rung and its choices."""
CONTEXTS = ("two-phase", "short")

SHORT_TOKENS, LONG_TOKENS = 64, 256
"""The contexts of the two phases."""
MEASURED_TOKENS = 2 * LONG_TOKENS
BIN_TOKENS = 32
WINDOWS = 64
"""Held-out windows of each source that loss by position is measured on."""
PAPER_BEYOND = 1.25
"""Share of the trained context up to which the paper's model stays good: 10k of 8k tokens."""
MICRO_BATCH_TOKENS = 8192
"""Tokens of a forward pass that measures loss by position."""

Curves = Mapping[str, Sequence[Sequence[float]]]
"""Loss of each seed in bins of ``BIN_TOKENS`` positions, by the name of what was trained."""


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the contexts and the ladder; at the paper's scale its one run."""
    if scale is Scale.PAPER:
        return (Stage("contexts", "btlm/paper", lambda _: [PAPER_RUN], SCORE, keeps_weights=True),)
    return (
        Stage("contexts", RECIPE, lambda _: context_trials(scale), SCORE, keeps_weights=True),
        Stage("ladder", RECIPE, lambda _: ladder_trials(scale), SCORE, keeps_weights=True),
    )


PAPER_RUN = Trial("btlm-3b-8k", ())


def context_trials(scale: Scale) -> list[Trial]:
    """Return the two-phase run and the run of the first context alone, seeds fastest."""
    short, long = QUICK_STEPS["short"], QUICK_STEPS["long"]
    shortened = {
        "two-phase": [f"phases.0.length={short} steps", f"phases.1.length={long} steps"],
        "short": [f"phases.0.length={short + long} steps"],
    }
    return [
        trial_of({"choose.context": name}, seed, shortened[name] if scale is Scale.QUICK else [])
        for name in CONTEXTS
        for seed in range(SEEDS[scale])
    ]


def ladder_trials(scale: Scale) -> list[Trial]:
    """Return every rung with every seed, seeds fastest."""
    shortened = [f"phases.0.length={sum(QUICK_STEPS.values())} steps"]
    extra = ["choose.context=long", *(shortened if scale is Scale.QUICK else [])]
    seeds = range(SEEDS[scale])
    return [trial_of(rung, seed, extra) for rung in LADDER.values() for seed in seeds]


def measure(results: Results, scale: Scale) -> Figures:
    """Read the ladder's losses, the switches of context and the losses by position."""
    contexts = by_name(results["contexts"], CONTEXTS[:1] if scale is Scale.PAPER else CONTEXTS)
    switches = [asdict(phase_switch(run.folder)) for run in contexts["two-phase"]]
    found: Figures = {"switches": switches, "bin_tokens": BIN_TOKENS}
    measured, limit = contexts, MEASURED_TOKENS
    if scale is Scale.PAPER:
        limit = 20 * MEASURED_TOKENS
    else:
        rungs = by_name(results["ladder"], tuple(LADDER))
        found["ladder"] = {name: [run.score for run in runs] for name, runs in rungs.items()}
        measured = contexts | {"long": rungs["all"]}
    found["loss_by_position"] = {
        name: [
            binned(curve).tolist()
            for curve in losses_by_position([run.folder for run in runs], limit, WINDOWS)
        ]
        for name, runs in measured.items()
    }
    return found


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


def losses_by_position(
    runs: Sequence[Path], length_tokens: int, sequences: int
) -> list[np.ndarray]:
    """Return ``loss_by_position`` of each run."""
    losses = []
    with progress("loss by position", len(runs), "models") as advance:
        for run in runs:
            losses.append(loss_by_position(run, length_tokens, sequences))
            advance(1)
    return losses


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and drawings; the paper's own run shows its switch of contexts only."""
    switches = [Switch.from_dict(own) for own in figures["switches"]]
    curves: Curves = figures["loss_by_position"]
    figure = position_figure(curves)
    if scale is Scale.PAPER:
        section = Section("Context schedule", (), [switch_table(switches)], [figure])
        return Findings((switch_claim(switches, claims),), (section,), figure)
    losses = figures["ladder"]
    sections = (
        Section(
            "Ladder of changes",
            ["Held-out loss at context 256, nats per byte; gains are paired by seed."],
            [ladder_table(losses, "base")],
        ),
        Section("Context schedule", (), [switch_table(switches), position_table(curves)], [figure]),
    )
    judged = (
        switch_claim(switches, claims),
        long_positions_claim(curves, claims),
        beyond_training_claim(curves, claims),
        *(change_claim(name, losses, claims) for name in (*CHANGES, "all")),
    )
    return Findings(judged, sections, figure)


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


def long_positions_claim(curves: Curves, claims: StatedClaims) -> Claim:
    """Judge what the second phase brings at positions beyond the first context."""
    beyond_first = slice(SHORT_TOKENS, LONG_TOKENS)
    two, short, long = (means(curves[arm], beyond_first) for arm in ("two-phase", "short", "long"))
    gained = Gain.of(two, short)
    return claims.lower(
        "second-phase-serves-long-positions",
        f"loss at positions {SHORT_TOKENS} to {LONG_TOKENS - 1}: {fmean(two):.4f} after "
        f"two phases, {fmean(short):.4f} after the short context alone: "
        f"{gained.lower_or_higher}; {fmean(long):.4f} when all tokens were trained at "
        f"{LONG_TOKENS}",
        gained,
    )


def beyond_training_claim(curves: Curves, claims: StatedClaims) -> Claim:
    """Judge the loss at positions beyond the second context."""
    end = round(PAPER_BEYOND * LONG_TOKENS)
    inside = means(curves["two-phase"], slice(LONG_TOKENS * 3 // 4, LONG_TOKENS))
    beyond = means(curves["two-phase"], slice(LONG_TOKENS, end))
    lost = Gain.of(beyond, inside)
    return claims.kept(
        "stays-good-beyond-training",
        f"loss at the {end - LONG_TOKENS} positions beyond {LONG_TOKENS}: {fmean(beyond):.4f}; at "
        f"the last quarter within: {fmean(inside):.4f} ({lost.lower_or_higher} beyond)",
        lost,
    )


def change_claim(change: str, losses: Mapping[str, Sequence[float]], claims: StatedClaims) -> Claim:
    """Judge a change by itself, or all of them together."""
    name = f"change-{change}"
    own = Gain.of(losses[change], losses["base"])
    beside = against_single_changes(losses) if change == "all" else ""
    held = own.exceeds(claims.limit(name, "noise"))
    return claims.judged(
        name,
        f"{own.lower_or_higher} than without{beside}",
        held=held,
        reading="" if held or own.mean > 0 else "no_gain",
    )


def against_single_changes(losses: Mapping[str, Sequence[float]]) -> str:
    """Say how all changes together compare with the best single one."""
    best = min(CHANGES, key=lambda name: fmean(losses[name]))
    gain = Gain.of(losses["all"], losses[best])
    return f"; {gain.lower_or_higher} than with {best} alone"


def means(curves: Sequence[Sequence[float]], positions: slice) -> list[float]:
    """Return each seed's mean loss over some positions, which begin and end where bins do."""
    bins = slice(positions.start // BIN_TOKENS, positions.stop // BIN_TOKENS)
    return [fmean(curve[bins]) for curve in curves]


def binned(curve: np.ndarray) -> np.ndarray:
    """Return a curve of losses as means of ``BIN_TOKENS`` positions."""
    return curve.reshape(-1, BIN_TOKENS).mean(axis=1)


def switch_table(switches: Sequence[Switch]) -> Table:
    """Return a table with a row for each seed."""
    return Table(
        ["switch of context", "step", "rate before", "rate after", "loss before", "loss after"],
        [
            [
                f"seed {seed}",
                f"{switch.step:,}",
                *(f"{rate:.4e}" for rate in switch.learning_rates),
                *(f"{loss:.3f}" for loss in switch.losses),
            ]
            for seed, switch in enumerate(switches)
        ],
    )


def position_table(curves: Curves) -> Table:
    """Return a table of mean losses over seeds in bands of positions."""
    edges = [0, SHORT_TOKENS, LONG_TOKENS // 2, LONG_TOKENS, MEASURED_TOKENS]
    bands = list(itertools.pairwise(edges))
    header = ["trained at", *(f"positions {low} to {high - 1}" for low, high in bands)]
    rows = [
        [name, *(f"{fmean(means(own, slice(*band))):.4f}" for band in bands)]
        for name, own in curves.items()
    ]
    return Table(header, rows)


def position_figure(curves: Curves) -> Figure:
    """Draw the loss over position, mean over seeds."""
    lines = []
    for name, own in curves.items():
        losses = [fmean(values) for values in zip(*own, strict=True)]
        places = [(index + 0.5) * BIN_TOKENS for index in range(len(losses))]
        lines.append(Series(LABELS[name], places, losses, "points"))
    return line_figure("Held-out loss by position", lines, "position in bytes", "nats per byte")


LABELS = {
    "two-phase": f"{SHORT_TOKENS}, then {LONG_TOKENS}",
    "short": f"{SHORT_TOKENS} only",
    "long": f"{LONG_TOKENS} only",
}

PAPER = Paper(
    name="btlm",
    folder=Path(__file__).parent,
    data=Data(RECIPE),
    stages=stages,
    measure=measure,
    judge=judge,
)
