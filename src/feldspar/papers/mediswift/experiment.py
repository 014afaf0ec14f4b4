"""MediSwift (2403.00952): sparse pre-training, dense fine-tuning on pairs with a soft prompt.

The same seeds are pre-trained dense, 50 and 75 % sparse, and as a narrow dense model with the block
weights that 75 % leave, and fine-tuned dense; one more arm keeps its masks.
"""

from statistics import fmean

from feldspar.papers.kit.cost import on_accelerators, run_cost
from feldspar.papers.kit.paper import Data, Figures, Findings, Paper, Results, Scale, Stage, by_name
from feldspar.papers.kit.validation_curve import ends_of_phases, validation_curve
from feldspar.papers.mediswift.claims import (
    DENSE,
    HALF,
    MASKS_KEPT,
    PRINTED_RATIOS,
    SMALL_DENSE,
    SPARSE,
    BySeed,
    accuracy_claims,
    benchmark_claim,
    flops_claim,
    shown,
    small_dense_claim,
    time_claim,
)
from feldspar.papers.mediswift.label_accuracy import accuracies_without_a_model, label_accuracies
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.report.figures import Figure, bar_figure
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial, TrialResult

SMALL, LARGE = "mediswift/small", "mediswift/paper"
SCORE = "validation/bits_per_byte"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3}
QUICK_STEPS = (120, 120)
"""Steps of pre-training and of fine-tuning in a quick run."""
PRETRAIN = "pretrain"
HELD_OUT = "test.jsonl"
"""Pairs that nothing was chosen by."""

CHOICES = {"choose.size": "whole", "choose.sparsity": "75%", "choose.fine_tuning": "dense"}
ARMS: dict[str, dict[str, str]] = {
    DENSE: CHOICES | {"choose.sparsity": "dense"},
    HALF: CHOICES | {"choose.sparsity": "50%"},
    SPARSE: CHOICES,
    MASKS_KEPT: CHOICES | {"choose.fine_tuning": "masks-kept"},
    SMALL_DENSE: CHOICES | {"choose.size": "small-dense"},
}
"""What is trained, by the choices of the small recipe."""


def stages(scale: Scale) -> tuple[Stage, ...]:
    """The arms; at the paper's scale its sizes and sparsities."""
    if scale is Scale.PAPER:
        return (Stage("sizes", LARGE, lambda _: paper_trials(), SCORE, keeps_weights=True),)
    return (Stage("arms", SMALL, lambda _: trials(scale), SCORE, keeps_weights=True),)


def trials(scale: Scale) -> list[Trial]:
    """Every arm with every seed, seeds fastest."""
    steps = [f"phases.{index}.length={count} steps" for index, count in enumerate(QUICK_STEPS)]
    shortened = steps if scale is Scale.QUICK else []
    return [trial_of(arm, seed, shortened) for arm in ARMS.values() for seed in range(SEEDS[scale])]


def paper_trials() -> list[Trial]:
    """Three sizes at three sparsities."""
    return [
        trial_of({"choose.size": size, "choose.sparsity": sparsity}, 0)
        for size in PRINTED_RATIOS
        for sparsity in (DENSE, HALF, SPARSE)
    ]


def measure(results: Results, scale: Scale) -> Figures:
    """Read losses and accuracies of every arm; at the paper's scale only FLOPs are counted."""
    ratios = {size: flops_ratio(size) for size in PRINTED_RATIOS}
    if scale is Scale.PAPER:
        return {"ratios": ratios}
    runs = by_name(results["arms"], tuple(ARMS))
    folders = {name: [run.folder for run in own] for name, own in runs.items()}
    return {
        "bits_per_byte": {
            name: [pretrained_bits(run) for run in own] for name, own in runs.items()
        },
        "accuracy": {name: label_accuracies(own, HELD_OUT) for name, own in folders.items()},
        "without_a_model": accuracies_without_a_model(folders[SPARSE][0], HELD_OUT),
        "ratios": ratios,
    }


def judge(figures: Figures, scale: Scale) -> Findings:
    """Make claims, the table of arms and the drawing."""
    cost = on_accelerators([run_cost(LARGE, trial) for trial in paper_trials()])
    ratios = figures["ratios"]
    if scale is Scale.PAPER:
        figure = bar_figure("Times fewer pre-training FLOPs at 75 %", ratios, "ratio")
        claims = (flops_claim(ratios), benchmark_claim(cost))
        return Findings(claims, (Section("FLOPs", (), (), [figure]),), figure)
    bits, accuracies = figures["bits_per_byte"], figures["accuracy"]
    beside = figures["without_a_model"]
    figure = accuracy_figure(accuracies, beside)
    found = (
        flops_claim(ratios),
        *accuracy_claims(accuracies, beside, cost),
        small_dense_claim(bits, accuracies, cost),
        time_claim(cost),
        benchmark_claim(cost),
    )
    table = arm_table(bits, accuracies, beside)
    words = (
        "Held-out bits per byte after pre-training, and right labels of the test definitions after "
        "fine-tuning, by likelihood; means over seeds. No learning rate was tuned for an arm. A "
        "bag of words, which reads no order and was not pre-trained, stands beside the models."
    )
    return Findings(found, (Section("Arms", [words], [table], [figure]),), figure)


def flops_ratio(size: str) -> float:
    """How many times fewer pre-training FLOPs 75 % takes, by the plan's ledger."""
    totals = [
        plan_recipe(
            load_recipe(LARGE, [f"choose.size={size}", f"choose.sparsity={sparsity}"]).recipe
        ).summary()["phases"][0]["ledger"]["total"]
        for sparsity in (DENSE, SPARSE)
    ]
    return totals[0] / totals[1]


def pretrained_bits(run: TrialResult) -> float:
    """Held-out bits per byte where pre-training ends."""
    end = ends_of_phases(validation_curve(run.folder))[PRETRAIN]
    return fmean(end.bits_per_byte.values())


def arm_table(bits: BySeed, accuracies: BySeed, beside: dict[str, float]) -> Table:
    """A row an arm, and what needs no model."""
    rows = [
        [name, f"{fmean(bits[name]):.4f}", shown(values)] for name, values in accuracies.items()
    ]
    rows += [[name, "", f"{value:.1%}"] for name, value in beside.items()]
    return Table(["arm", "bits per byte", "right labels"], rows)


def accuracy_figure(accuracies: BySeed, beside: dict[str, float]) -> Figure:
    """Right labels by arm."""
    bars = {name: 100 * fmean(values) for name, values in accuracies.items()}
    bars |= {name: 100 * value for name, value in beside.items()}
    return bar_figure("Organ systems of held-out definitions", bars, "% right, no rate tuned")


PAPER = Paper(
    name="mediswift",
    title="MediSwift: sparse pre-training, dense fine-tuning",
    number="2403.00952",
    data=Data(SMALL),
    stages=stages,
    measure=measure,
    judge=judge,
)
