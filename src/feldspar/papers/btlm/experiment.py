"""BTLM-3B-8K (2309.11568): single changes to the Cerebras-GPT recipe, and two context lengths.

The ladder trains the same seeds with each change alone and with one more at a time, all at one
context. ``contexts`` trains the two-phase run beside one that keeps the first phase's context.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from feldspar.papers.btlm.contexts import (
    ARMS,
    CONTEXTS,
    context_claims,
    context_section,
    context_trials,
    measure_contexts,
    position_figure,
)
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain, ladder_table
from feldspar.papers.kit.paper import Data, Figures, Findings, Paper, Results, Scale, Stage, by_name
from feldspar.papers.kit.stated import StatedClaims
from feldspar.report.page import Section
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial

RECIPE = "btlm/small"
SCORE = "validation/loss"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3}
QUICK_STEPS = 80
"""Steps of a rung in a quick run."""

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


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the contexts and the ladder; at the paper's scale its one run."""
    if scale is Scale.PAPER:
        return (Stage("contexts", "btlm/paper", lambda _: [PAPER_RUN], SCORE, keeps_weights=True),)
    return (
        Stage("contexts", CONTEXTS, lambda _: context_trials(scale), SCORE, keeps_weights=True),
        Stage("ladder", RECIPE, lambda _: ladder_trials(scale), SCORE),
    )


PAPER_RUN = Trial("btlm-3b-8k", ())


def ladder_trials(scale: Scale) -> list[Trial]:
    """Return every rung with every seed, seeds fastest."""
    shortened = [f"phases.0.length={QUICK_STEPS} steps"]
    extra = ["choose.context=long", *(shortened if scale is Scale.QUICK else [])]
    seeds = range(SEEDS[scale])
    return [trial_of(rung, seed, extra) for rung in LADDER.values() for seed in seeds]


def measure(results: Results, scale: Scale) -> Figures:
    """Read the figures of the stages that were run: the contexts, and the ladder's losses."""
    found: Figures = {}
    if "contexts" in results:
        arms = ARMS[:1] if scale is Scale.PAPER else ARMS
        contexts = by_name(results["contexts"], arms)
        folders = {name: [run.folder for run in runs] for name, runs in contexts.items()}
        found |= measure_contexts(folders, scale)
    if "ladder" in results:
        rungs = by_name(results["ladder"], tuple(LADDER))
        found["ladder"] = {name: [run.score for run in runs] for name, runs in rungs.items()}
    return found


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and drawings; the paper's own run shows its switch of contexts only."""
    figure = position_figure(figures["loss_by_position"])
    judged = context_claims(figures, claims)
    sections = [context_section(figures, figure)]
    if scale is not Scale.PAPER:
        losses = figures["ladder"]
        judged += [change_claim(name, losses, claims) for name in (*CHANGES, "all")]
        words = "Held-out loss at context 256, nats per byte; gains are paired by seed."
        sections.append(Section("Ladder of changes", [words], [ladder_table(losses, "base")]))
    return Findings(tuple(judged), tuple(sections), figure)


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


PAPER = Paper(
    name="btlm",
    folder=Path(__file__).parent,
    data=Data(RECIPE),
    more_data=(Data(CONTEXTS),),
    stages=stages,
    measure=measure,
    judge=judge,
    separate=frozenset({"contexts", "ladder"}),
)
