"""BTLM-3B-8K (2309.11568): single changes to the Cerebras-GPT recipe, and two context lengths.

The ladder trains the same seeds with each change alone and with one more at a time, all at the
longer context. Beside it stand the two-phase run, and one that keeps the first phase's context.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean

import numpy as np

from feldspar.papers.btlm.loss_by_position import losses_by_position
from feldspar.papers.btlm.phase_switch import Switch, phase_switch
from feldspar.papers.kit.claims import Claim, judged, not_run
from feldspar.papers.kit.cost import on_accelerators, run_cost
from feldspar.papers.kit.ladder import Gain, ladder_table
from feldspar.papers.kit.paper import Data, Figures, Findings, Paper, Results, Scale, Stage, by_name
from feldspar.report.figures import Figure, Series, line_figure
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial

RECIPE = "btlm/small"
SCORE = "validation/loss"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3}
QUICK_STEPS = {"short": 60, "long": 20}
"""Steps of the two phases of a quick run."""

FEED_FORWARD, POSITIONS, DECAY = "choose.feed_forward", "choose.positions", "choose.decay"
OLD = {FEED_FORWARD: "gelu", POSITIONS: "learned", DECAY: "tenth"}
NEW = {FEED_FORWARD: "swiglu", POSITIONS: "alibi", DECAY: "deep"}
CHANGES = {
    "swiglu": (FEED_FORWARD, "SwiGLU in place of GELU, at equal parameters,"),
    "alibi": (POSITIONS, "ALiBi in place of learned positions"),
    "decay": (DECAY, "A learning rate that falls to 0.85 % instead of 10 % of its peak"),
}
LADDER: dict[str, dict[str, str]] = {
    "base": OLD,
    **{name: OLD | {key: NEW[key]} for name, (key, _) in CHANGES.items()},
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
STAYS_GOOD = 0.01
"""A loss that is higher by no more than this share has stayed good."""

Curves = Mapping[str, Sequence[Sequence[float]]]
"""Loss of each seed in bins of ``BIN_TOKENS`` positions, by the name of what was trained."""


def stages(scale: Scale) -> tuple[Stage, ...]:
    """The contexts and the ladder; at the paper's scale its one run."""
    if scale is Scale.PAPER:
        return (Stage("contexts", "btlm/paper", lambda _: [PAPER_RUN], SCORE, keeps_weights=True),)
    return (
        Stage("contexts", RECIPE, lambda _: context_trials(scale), SCORE, keeps_weights=True),
        Stage("ladder", RECIPE, lambda _: ladder_trials(scale), SCORE, keeps_weights=True),
    )


PAPER_RUN = Trial("btlm-3b-8k", ())


def context_trials(scale: Scale) -> list[Trial]:
    """The two-phase run and the one of the first context alone, seeds fastest."""
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
    """Every rung with every seed, seeds fastest."""
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


def judge(figures: Figures, scale: Scale) -> Findings:
    """Make claims, tables and drawings; the paper's own run shows its switch of contexts only."""
    cost = on_accelerators([run_cost("btlm/paper", PAPER_RUN)])
    switches = [Switch.from_dict(own) for own in figures["switches"]]
    curves: Curves = figures["loss_by_position"]
    figure = position_figure(curves)
    if scale is Scale.PAPER:
        claims = (switch_claim(switches, cost, at_paper_scale=True), downstream_claim(cost))
        section = Section("Context schedule", (), [switch_table(switches)], [figure])
        return Findings(claims, (section,), figure)
    losses = figures["ladder"]
    sections = (
        Section(
            "Ladder of changes",
            ["Held-out loss at context 256, nats per byte; gains are paired by seed."],
            [ladder_table(losses, "base")],
        ),
        Section("Context schedule", (), [switch_table(switches), position_table(curves)], [figure]),
    )
    found = [
        switch_claim(switches, cost, at_paper_scale=False),
        *position_claims(curves, cost),
        *ladder_claims(losses, cost),
        downstream_claim(cost),
    ]
    return Findings(tuple(found), sections, figure)


def switch_claim(switches: Sequence[Switch], cost: str, *, at_paper_scale: bool) -> Claim:
    """Only context and sequences change where the phases meet."""
    first = switches[0]
    before, after = first.learning_rates
    return judged(
        "one-schedule-over-two-contexts",
        statement="At three quarters of the tokens context grows fourfold at the same tokens per "
        "step; the learning-rate line and the optimizer's state go on.",
        paper="base rate 3.0778e-3 at step 119,727, on one line from 95 steps to the end",
        ours=f"base rate {before:.4e} before and {after:.4e} after step {first.step:,}, "
        f"{max(switch.off_the_line for switch in switches):.1e} off the line; "
        f"{first.step_length[0]:,} tokens a step on both sides; the state counts "
        f"{first.updates:,} updates in {first.steps:,} steps; training loss "
        f"{first.losses[0]:.3f} in the steps before, {first.losses[1]:.3f} after; gradient norm "
        f"{first.gradient_norms[0]:.2f}, {first.gradient_norms[1]:.2f}",
        tolerance="rate within 1e-6 of its line, equal tokens per step, every update counted",
        held=all(switch.is_continuous for switch in switches),
        same_quantity=at_paper_scale,
        why="Read from the run's records and from the optimizer's state in its last checkpoint.",
        why_not="The records of the switch show a break.",
        cost=cost,
        counted=True,
    )


def position_claims(curves: Curves, cost: str) -> list[Claim]:
    """What the second phase buys at long positions, and how far it carries beyond them."""
    beyond_first = slice(SHORT_TOKENS, LONG_TOKENS)
    two, short = means(curves["two-phase"], beyond_first), means(curves["short"], beyond_first)
    long = means(curves["long"], beyond_first)
    gained = Gain.of(two, short)
    inside = means(curves["two-phase"], slice(LONG_TOKENS * 3 // 4, LONG_TOKENS))
    beyond = means(curves["two-phase"], slice(LONG_TOKENS, round(PAPER_BEYOND * LONG_TOKENS)))
    lost = Gain.of(beyond, inside)
    return [
        judged(
            "second-phase-serves-long-positions",
            statement="A model trained at the short context alone does not serve four times that "
            "context; a quarter of the tokens at the long one does.",
            paper="2k training alone does not extrapolate to 8k (model card)",
            ours=f"loss at positions {SHORT_TOKENS} to {LONG_TOKENS - 1}: {fmean(two):.4f} after "
            f"two phases, {fmean(short):.4f} after the short context alone: "
            f"{gained.lower_or_higher}; {fmean(long):.4f} when all tokens were trained at "
            f"{LONG_TOKENS}",
            tolerance=f"lower by {gained.needed}",
            held=gained.is_clear,
            same_quantity=False,
            why="The same tokens, seeds and rates; only the contexts of the last quarter differ.",
            why_not="On this text and size ALiBi carries the short training as far, or the seeds "
            "do not tell.",
            cost=cost,
        ),
        judged(
            "stays-good-beyond-training",
            statement="After the second phase loss stays good to a quarter beyond its context.",
            paper="to about 10k of 8,192 trained tokens, slightly worse beyond (model card)",
            ours=f"loss at the {len(range(LONG_TOKENS, round(PAPER_BEYOND * LONG_TOKENS)))} "
            f"positions beyond {LONG_TOKENS}: {fmean(beyond):.4f}; at the last quarter within: "
            f"{fmean(inside):.4f} ({lost.lower_or_higher} beyond)",
            tolerance=f"higher by at most {STAYS_GOOD:.0%}, the whole interval",
            held=lost.is_at_least(-STAYS_GOOD),
            same_quantity=False,
            why="ALiBi's bias goes on beyond the positions that were trained.",
            why_not="Loss rises beyond the trained context.",
            cost=cost,
        ),
    ]


def ladder_claims(losses: Mapping[str, Sequence[float]], cost: str) -> list[Claim]:
    """Judge each change by itself, and all of them together."""
    rungs = {name: f"{words} lowers the loss." for name, (_, words) in CHANGES.items()}
    rungs["all"] = "The three changes together lower the loss."
    found = []
    for name, statement in rungs.items():
        own = Gain.of(losses[name], losses["base"])
        beside = "" if name != "all" else against_single_changes(losses)
        no_gain = "The gain is not above the noise of the seed at this size."
        found.append(
            judged(
                f"change-{name}",
                statement=statement,
                paper="lower loss (the paper's figure was not verified and is not printed)",
                ours=f"{own.lower_or_higher} than without{beside}",
                tolerance=f"lower by {own.needed}",
                held=own.is_clear,
                same_quantity=False,
                why="Paired by seed: the same text in the same order.",
                why_not=no_gain if own.mean > 0 else "The loss is not lower at all at this size.",
                cost=cost,
            )
        )
    return found


def against_single_changes(losses: Mapping[str, Sequence[float]]) -> str:
    """Say how all changes together compare with the best single one."""
    best = min(CHANGES, key=lambda name: fmean(losses[name]))
    gain = Gain.of(losses["all"], losses[best])
    return f"; {gain.lower_or_higher} than with {best} alone"


def downstream_claim(cost: str) -> Claim:
    """What only a 3B model can show."""
    return not_run(
        "better-than-3b-models",
        statement="Better than all 3B models of its time on downstream tasks.",
        paper="by 2 to 5.5 %",
        reason="A model of this size is at chance on these tasks.",
        cost=cost,
    )


def means(curves: Sequence[Sequence[float]], positions: slice) -> list[float]:
    """Return each seed's mean loss over some positions, which begin and end where bins do."""
    bins = slice(positions.start // BIN_TOKENS, positions.stop // BIN_TOKENS)
    return [fmean(curve[bins]) for curve in curves]


def binned(curve: np.ndarray) -> np.ndarray:
    """A curve of losses as means of ``BIN_TOKENS`` positions."""
    return curve.reshape(-1, BIN_TOKENS).mean(axis=1)


def switch_table(switches: Sequence[Switch]) -> Table:
    """A row a seed."""
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
    """Mean loss over seeds in bands of positions."""
    edges = [0, SHORT_TOKENS, LONG_TOKENS // 2, LONG_TOKENS, MEASURED_TOKENS]
    bands = list(itertools.pairwise(edges))
    header = ["trained at", *(f"positions {low} to {high - 1}" for low, high in bands)]
    rows = [
        [name, *(f"{fmean(means(own, slice(*band))):.4f}" for band in bands)]
        for name, own in curves.items()
    ]
    return Table(header, rows)


def position_figure(curves: Curves) -> Figure:
    """Loss over position, mean over seeds."""
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
    title="BTLM-3B-8K: one recipe, two context lengths",
    number="2309.11568",
    data=Data(RECIPE),
    stages=stages,
    measure=measure,
    judge=judge,
)
