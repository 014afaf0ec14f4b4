"""MediSwift (2403.00952): sparse pre-training, dense fine-tuning on pairs with a soft prompt.

The same seeds are pre-trained dense, 50 and 75 % sparse, and as a narrow dense model with the block
weights that 75 % leave, and fine-tuned dense; one more arm keeps its masks, and one was never
pre-trained. That model is too small for sparse products: wider arms are pre-trained for the same
time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.paper import Data, Figures, Findings, Paper, Results, Scale, Stage
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.kit.step_time import step_seconds_in_turn
from feldspar.papers.mediswift.arms import (
    ARMS,
    BEGINS_AS,
    KINDS,
    MASKS_KEPT,
    PAIRS,
    PRETRAINED,
    PRETRAINED_STAGE,
    PRETRAINING,
    PRETRAINING_RATES,
    SCORE,
    STAGES,
    TUNED_STAGE,
    TUNING_RATES,
    arm_stages,
    pretraining_curves,
    tuning_curves,
)
from feldspar.papers.mediswift.label_claims import (
    accuracy_figure,
    arm_table,
    dense_tuning_claim,
    level_claim,
    rate_table,
    small_dense_claim,
)
from feldspar.papers.mediswift.labels import accuracies, accuracies_without_a_model
from feldspar.papers.mediswift.time_arms import (
    ARM,
    DENSE,
    HALF,
    SPARSE,
    TIME,
    TIMED,
    overrides_of,
    runs_by_arm,
    time_trials,
)
from feldspar.papers.mediswift.time_arms import ARMS as ARMS_IN_TIME
from feldspar.papers.mediswift.time_claims import (
    small_dense_in_time_claim,
    time_claim,
    time_figure,
    time_table,
)
from feldspar.papers.mediswift.time_to_loss import Pretraining
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.report.bars import Bar, bar_figure
from feldspar.report.page import Section
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial, TrialResult
from feldspar.train.run import Inputs

SIZES = ("med", "large", "xl")
LARGE = "mediswift/paper"
TURNS = {Scale.QUICK: 2, Scale.SMALL: 20}
"""The steps of each arm that are timed."""
IN_TIME = "time"


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the arms and those of equal time; at the paper's scale its sizes and sparsities."""
    if scale is Scale.PAPER:
        return (Stage("sizes", LARGE, lambda _: paper_trials(), SCORE, keeps_weights=True),)
    return (*arm_stages(scale), Stage(IN_TIME, TIME, lambda _: time_trials(scale), SCORE))


def paper_trials() -> list[Trial]:
    """Return three sizes at three sparsities."""
    return [
        trial_of({"choose.size": size, "choose.sparsity": sparsity}, 0)
        for size in SIZES
        for sparsity in (DENSE, HALF, SPARSE)
    ]


def measure(results: Results, scale: Scale) -> Figures:
    """Read losses and accuracies of every arm; at the paper's scale only FLOPs are counted."""
    ratios = {size: flops_ratio(size) for size in SIZES}
    if scale is Scale.PAPER:
        return {"ratios": ratios}
    timed = pretraining_in_time(results[IN_TIME], TURNS[scale]) if IN_TIME in results else {}
    tuned = tuned_arms(results, scale) if TUNED_STAGE in results else {}
    return {**tuned, **timed, "ratios": ratios}


def tuned_arms(results: Results, scale: Scale) -> Figures:
    """Read the losses, accuracies, rates and times of the arms of width 96."""
    pretrained = runs_by_arm(results[PRETRAINED_STAGE], PRETRAINED)
    tuned = runs_by_arm(results[TUNED_STAGE], ARMS)
    folders = {name: [run.folder for run in own] for name, own in tuned.items()}
    return {
        "bits_per_byte": {name: [run.score for run in own] for name, own in pretrained.items()},
        "accuracy": {name: accuracies(own, PAIRS[scale]) for name, own in folders.items()},
        "without_a_model": accuracies_without_a_model(folders[DENSE][0], PAIRS[scale]),
        "rates": {
            "pretraining": pretraining_curves(results),
            "fine_tuning": tuning_curves(results, scale),
        },
        "arm_seconds": arm_seconds(TURNS[scale]),
    }


def arm_seconds(turns: int) -> dict[str, float]:
    """Return the processor seconds of pre-training and fine-tuning of each arm together."""
    first = {name: (f"{ARM}={choice}",) for name, choice in PRETRAINED.items()}
    masks = ('phases.0.sparsity={"type": "static", "sparsity": 0.75}',)
    second = {
        name: (
            f"{ARM}={choice}",
            'start_from={"type": "scratch"}',
            *(masks if name == MASKS_KEPT else ()),
        )
        for name, choice in ARMS.items()
    }
    begun = phase_seconds(PRETRAINING, first, turns)
    ended = phase_seconds(KINDS, second, turns)
    return {
        name: ended[name] + (begun[BEGINS_AS[name]] if name in BEGINS_AS else 0.0) for name in ARMS
    }


def phase_seconds(recipe: str, arms: Mapping[str, Sequence[str]], turns: int) -> dict[str, float]:
    """Return the processor seconds of all steps of each arm's run, without validation."""
    timed = step_seconds_in_turn(recipe, arms, turns)
    steps = {
        name: Inputs.open(load_recipe(recipe, list(own))).plan.timeline.steps
        for name, own in arms.items()
    }
    return {name: steps[name] * median(own) for name, own in timed.items()}


def pretraining_in_time(runs: Sequence[TrialResult], turns: int) -> Figures:
    """Return the time of a step of each timed arm, and the losses along the runs."""
    timed = step_seconds_in_turn(TIME, {name: overrides_of(name) for name in TIMED}, turns)
    seconds = {name: median(own) for name, own in timed.items()}
    arms = {
        name: asdict(Pretraining.of_runs(own, seconds[name]))
        for name, own in runs_by_arm(runs, ARMS_IN_TIME).items()
    }
    return {"step_seconds": seconds, "pretraining": arms}


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, the table of arms and the drawing."""
    ratios = figures["ratios"]
    if scale is Scale.PAPER:
        figure = bar_figure(
            "Times fewer pre-training FLOPs at 75 %",
            [Bar(name, value) for name, value in ratios.items()],
            "ratio",
        )
        sections = (Section("FLOPs", (), (), [figure]),)
        return Findings((flops_claim(ratios, claims),), sections, figure)
    arms = {name: Pretraining.from_dict(values) for name, values in figures["pretraining"].items()}
    figure = time_figure(arms, figures["arm_seconds"], figures["accuracy"])
    tuned = judge_arms(figures, claims)
    judged = (
        flops_claim(ratios, claims),
        *tuned.claims,
        time_claim(arms, figures["step_seconds"], claims),
        small_dense_in_time_claim(arms, claims),
    )
    in_time = (
        "Wider arms, pre-trained for the same time. Seconds are processor time of one thread: the "
        "median of an arm's steps, times their number. These steps were timed after the runs, in "
        "turn with those of the other arms; other programs lengthen a step on the clock, and not "
        "all arms alike. Validation is not counted."
    )
    time = Section("Time", [in_time], [time_table(arms)], [figure])
    return Findings(judged, (*tuned.sections, time), figure, tuned.tables)


def judge_arms(figures: Figures, claims: StatedClaims) -> Findings:
    """Make the claims and tables of the arms of width 96."""
    bits, right = figures["bits_per_byte"], figures["accuracy"]
    beside, rates = figures["without_a_model"], figures["rates"]
    judged = (
        level_claim(right, beside, claims),
        dense_tuning_claim(right, claims),
        small_dense_claim(bits, right, claims),
    )
    begun, ended = rates["pretraining"], rates["fine_tuning"]
    table = arm_table(bits, right, beside, begun, ended)
    tried = [
        rate_table(begun, PRETRAINING_RATES, "bits per byte"),
        rate_table(ended, TUNING_RATES, "share of wrong answers"),
    ]
    words = (
        "Held-out bits per byte after pre-training, and right answers to the test statements "
        "after fine-tuning, by likelihood; means over seeds. Every statement is asked in both "
        "directions, so that a bag of words is right half the time. A bag of words that tells the "
        "two names apart stands beside the models too."
    )
    search = (
        "Learning rates were chosen with a seed of their own: the two middle ones first, then the "
        "neighbour of the better one. Lower is better; fine-tuning is scored on the validation "
        "statements."
    )
    sections = (
        Section("Arms", [words], [table], [accuracy_figure(right, beside)]),
        Section("Learning rates", [search], tried),
    )
    return Findings(judged, sections, None, (table,))


def flops_claim(ratios: Mapping[str, float], claims: StatedClaims) -> Claim:
    """Judge the ratio of FLOPs from the planner's ledger."""
    name = "fewer-flops"
    printed = {size: claims.limit(name, size) for size in SIZES}
    margin = claims.limit(name, "margin")
    ours = ", ".join(f"{size} {ratio:.3f}" for size, ratio in ratios.items())
    return claims.judged(
        name,
        f"{ours} times fewer, by the plan's ledger (attention and head stay dense)",
        held=all(abs(ratios[size] - printed[size]) < margin for size in SIZES),
    )


def flops_ratio(size: str) -> float:
    """Return the FLOPs of dense pre-training over those at 75 %, by the plan's ledger."""
    totals = [
        plan_recipe(
            load_recipe(LARGE, [f"choose.size={size}", f"choose.sparsity={sparsity}"]).recipe
        ).summary()["phases"][0]["ledger"]["total"]
        for sparsity in (DENSE, SPARSE)
    ]
    return totals[0] / totals[1]


PAPER = Paper(
    name="mediswift",
    folder=Path(__file__).parent,
    data=Data(PRETRAINING),
    stages=stages,
    measure=measure,
    judge=judge,
    separate=frozenset((*STAGES, IN_TIME)),
)
