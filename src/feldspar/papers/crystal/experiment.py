"""Crystal (2411.04156): language first, then code with fill-in-the-middle, then application code.

Three sets of runs: from random weights, the order of language and code; from a trunk, phase 2 with
and without fill-in-the-middle; from the weights of phase 2, phase 3 or more of phase 2.
"""

from collections.abc import Sequence
from pathlib import Path

from feldspar.evaluate.tasks.filled_gaps import BOTH_ORDERS
from feldspar.papers.crystal.infilling import (
    GAPS,
    PLAIN,
    FilledGaps,
    filled_gaps_claim,
    infilling_table,
    measure_gaps,
    reading_claim,
)
from feldspar.papers.crystal.kinds import bits_along, bits_by_phase, bits_of_runs, kind_table
from feldspar.papers.crystal.last_phase import LAST_PHASES, no_gain_claim, replay_claim
from feldspar.papers.crystal.order import (
    ORDERS,
    PHASED,
    curve_figure,
    order_claim,
    steady_claim,
    transfer_claim,
)
from feldspar.papers.kit.paper import (
    Figures,
    Findings,
    Paper,
    Results,
    Scale,
    Stage,
    by_name,
    start_from_run,
)
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.kit.trunk import TRUNK_DATA, start_from_trunk, trunk_stage
from feldspar.papers.kit.validation_curve import Validation, validation_curve
from feldspar.report.page import Section
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial

SMALL, BRANCH, LARGE = "crystal/small", "crystal/branch", "crystal/paper"
SCORE = "validation/bits_per_byte"
ORDER_SEEDS = {Scale.QUICK: (0,), Scale.SMALL: (0, 1, 2, 3, 4)}
BRANCH_SEEDS = {Scale.QUICK: (0,), Scale.SMALL: (3, 4, 5)}
"""Seeds of phase 2, one for each trunk."""
LAST_SEEDS = {Scale.QUICK: (1,), Scale.SMALL: (6, 7, 8)}
"""Seeds of the runs after phase 2. No run has the seed of the run that it starts from, so that none
reads that run's text in the same order once more."""
QUICK_STEPS = {PHASED: (4, 6), "pooled": (10,), "code-alone": (5,)}
"""Steps of each phase in a quick run, by order."""
QUICK_BRANCH = "phases.0.length=8 steps"
QUICK_GAP_TOKENS = 8_000
"""Most held-out tokens of a source whose gaps a quick run fills."""

INFILLINGS = {GAPS: "paper", PLAIN: "none"}
"""The arms of phase 2 by the recipe's choice of infilling."""


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the three sets of runs and their trunks; at the paper's scale its one run."""
    if scale is Scale.PAPER:
        return (Stage("phases", LARGE, lambda _: [Trial("crystal", ())], SCORE),)
    return (
        trunk_stage(scale),
        Stage("order", SMALL, lambda _: order_trials(scale), SCORE),
        Stage("infilling", BRANCH, lambda _: infilling_trials(scale), SCORE, keeps_weights=True),
        Stage("last", BRANCH, lambda results: last_trials(scale, results), SCORE),
    )


def order_trials(scale: Scale) -> list[Trial]:
    """Return every order with every seed, seeds fastest."""
    trials = []
    for order in ORDERS:
        arm = {"choose.order": order, "choose.infilling": "none"}
        shortened = [] if scale is Scale.SMALL else _shortened(order)
        trials += [trial_of(arm, seed, shortened) for seed in ORDER_SEEDS[scale]]
    return trials


def _shortened(order: str) -> list[str]:
    """Return the overrides of a quick run, which validates at the end of every phase."""
    lengths = [
        f"phases.{index}.length={count} steps" for index, count in enumerate(QUICK_STEPS[order])
    ]
    rates = [
        f"phases.{index}.learning_rate=[{{to: 1e-2, over: rest}}]"
        for index in range(len(QUICK_STEPS[order]))
    ]
    return [*lengths, *rates, "evaluation.every=2 steps", "evaluation.validation_sequences=4"]


def infilling_trials(scale: Scale) -> list[Trial]:
    """Return phase 2 with and without fill-in-the-middle, from the trunks, seeds fastest."""
    shortened = [QUICK_BRANCH] if scale is Scale.QUICK else []
    return [
        trial_of({"choose.infilling": choice}, seed, [*shortened, start_from_trunk(scale, seed)])
        for choice in INFILLINGS.values()
        for seed in BRANCH_SEEDS[scale]
    ]


def last_trials(scale: Scale, results: Results) -> list[Trial]:
    """Return the arms after phase 2, each seed from its own run with fill-in-the-middle."""
    shortened = [QUICK_BRANCH] if scale is Scale.QUICK else []
    trials = []
    for phase in LAST_PHASES:
        for index, seed in enumerate(LAST_SEEDS[scale]):
            begun = results.get("infilling", ())
            folder = begun[index].folder if begun else "runs/crystal-branch"
            overrides = [*shortened, start_from_run(folder, BRANCH)]
            trials.append(trial_of({"choose.phase": phase}, seed, overrides))
    return trials


def measure(results: Results, scale: Scale) -> Figures:
    """Read the bits per byte of all runs; below the paper's scale gaps are filled too."""
    if scale is Scale.PAPER:
        curves = [validation_curve(run.folder) for run in results["phases"]]
        return _phased_figures(curves)
    orders, begun, last = (
        by_name(results[stage], names)
        for stage, names in (
            ("order", ORDERS),
            ("infilling", tuple(INFILLINGS)),
            ("last", LAST_PHASES),
        )
    )
    ends = {
        arm: bits_of_runs([validation_curve(run.folder)[-1] for run in runs])
        for arm, runs in (orders | begun | last).items()
    }
    phased = [validation_curve(run.folder) for run in orders[PHASED]]
    folders = {arm: [run.folder for run in runs] for arm, runs in begun.items()}
    limit = QUICK_GAP_TOKENS if scale is Scale.QUICK else None
    return _phased_figures(phased) | {"ends": ends, "infilling": measure_gaps(folders, limit)}


def _phased_figures(curves: Sequence[Sequence[Validation]]) -> Figures:
    """Return the bits per byte of a run in phases: at the ends of phases, and all along."""
    return {
        "phases": bits_by_phase(curves),
        "curve": bits_along(curves),
        "tokens": [each.tokens for each in curves[0]],
    }


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and the drawing."""
    figure = curve_figure(figures["tokens"], figures["curve"])
    steady = steady_claim(figures["phases"], figures["curve"], claims)
    phases = kind_table("end of phase", figures["phases"])
    if scale is Scale.PAPER:
        return Findings((steady,), (Section("Phases", [ENDS], [phases], [figure]),), figure)
    ends, filled = figures["ends"], FilledGaps(figures["infilling"])
    judged = (
        steady,
        transfer_claim(ends, claims),
        order_claim(ends, claims),
        *(filled_gaps_claim(filled, order, claims) for order in BOTH_ORDERS),
        reading_claim(ends[GAPS], ends[PLAIN], claims),
        replay_claim(ends[GAPS], ends, claims),
        no_gain_claim(ends, claims),
    )
    orders = kind_table("order", {arm: ends[arm] for arm in ORDERS})
    gaps = infilling_table(filled)
    branches = kind_table("branch", {arm: ends[arm] for arm in (GAPS, PLAIN, *LAST_PHASES)})
    sections = (
        Section("From random weights", [ENDS], [phases, orders], [figure]),
        Section("Gaps in held-out code", [MIDDLES], [gaps]),
        Section("From a trunk", [ENDS], [branches]),
    )
    return Findings(judged, sections, figure, (gaps, orders, branches))


ENDS = (
    "Held-out bits per byte at the end of a phase or run, mean over seeds; each source of a kind "
    "is counted alike, and lower is better."
)
MIDDLES = (
    "Bits per byte of the middle, mean over seeds; the share of middles that greedy decoding "
    "reproduces token for token. After +- stands the interval over seeds, then the one over "
    "documents."
)

PAPER = Paper(
    name="crystal",
    folder=Path(__file__).parent,
    data=TRUNK_DATA,
    stages=stages,
    measure=measure,
    judge=judge,
)
