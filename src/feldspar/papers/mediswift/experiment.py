"""MediSwift (2403.00952): sparse pre-training, dense fine-tuning on pairs with a soft prompt.

The same seeds are pre-trained dense, 50 and 75 % sparse, and as a narrow dense model with the block
weights that 75 % leave, and fine-tuned dense; one more arm keeps its masks. That model is too small
for sparse products: wider arms are pre-trained for the same time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median

from feldspar.core.progress import progress
from feldspar.core.student_t import half_width
from feldspar.evaluate.tasks.labels import likeliest_labels
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.paper import (
    Data,
    Figures,
    Findings,
    Paper,
    Results,
    Scale,
    Stage,
    by_name,
)
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.kit.step_time import step_seconds_in_turn
from feldspar.papers.kit.validation_curve import ends_of_phases, validation_curve
from feldspar.papers.mediswift.time_arms import (
    DENSE,
    HALF,
    SMALL_DENSE,
    SPARSE,
    TIME,
    TIMED,
    by_arm,
    overrides_of,
    time_trials,
)
from feldspar.papers.mediswift.time_claims import (
    BySeed,
    small_dense_in_time_claim,
    time_claim,
    time_figure,
    time_table,
)
from feldspar.papers.mediswift.time_to_loss import Pretraining
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.phase_data import PairTemplate
from feldspar.report.figures import Figure, bar_figure
from feldspar.report.page import Section, Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial, TrialResult
from feldspar.tokens.sequences.pairs import PairText, encode_pairs, read_pairs
from feldspar.train.examples import pair_layout
from feldspar.train.load import load_run, text_model_of
from feldspar.train.pairs import label_baselines, labelled_phase
from feldspar.train.run import Inputs

MASKS_KEPT = "75%, masks kept"
SIZES = ("med", "large", "xl")
MOST_FREQUENT = "most frequent label"
"""Baselines without a model, as the evaluation of labels names them."""
UNTUNED = "no learning rate was tuned for an arm"

SMALL, LARGE = "mediswift/small", "mediswift/paper"
SCORE = "validation/bits_per_byte"
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3}
QUICK_STEPS = (120, 120)
"""Steps of pre-training and of fine-tuning in a quick run."""
PRETRAIN = "pretrain"
PAIRS = {Scale.QUICK: 240, Scale.SMALL: None}
"""The number of held-out pairs that are asked; None for all."""
TURNS = {Scale.QUICK: 2, Scale.SMALL: 20}
"""The steps of each arm that are timed."""
AT_ONCE = ("phases.0.length=1 steps", "phases.0.learning_rate=4e-3")
"""Overrides that leave one step of pre-training, so that those of fine-tuning are timed."""
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
"""The arms by the choices of the small recipe."""


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the arms and those of equal time; at the paper's scale its sizes and sparsities."""
    if scale is Scale.PAPER:
        return (Stage("sizes", LARGE, lambda _: paper_trials(), SCORE, keeps_weights=True),)
    return (
        Stage("arms", SMALL, lambda _: trials(scale), SCORE, keeps_weights=True),
        Stage("time", TIME, lambda _: time_trials(scale), SCORE),
    )


def trials(scale: Scale) -> list[Trial]:
    """Return every arm with every seed, seeds fastest."""
    steps = [f"phases.{index}.length={count} steps" for index, count in enumerate(QUICK_STEPS)]
    shortened = steps if scale is Scale.QUICK else []
    return [trial_of(arm, seed, shortened) for arm in ARMS.values() for seed in range(SEEDS[scale])]


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
    runs = by_name(results["arms"], tuple(ARMS))
    folders = {name: [run.folder for run in own] for name, own in runs.items()}
    return {
        "bits_per_byte": {
            name: [pretrained_bits(run) for run in own] for name, own in runs.items()
        },
        "accuracy": {
            name: label_accuracies(own, HELD_OUT, PAIRS[scale]) for name, own in folders.items()
        },
        "without_a_model": accuracies_without_a_model(folders[SPARSE][0], HELD_OUT, PAIRS[scale]),
        "arm_seconds": arm_seconds(
            {name: own[0].trial.overrides for name, own in runs.items()}, TURNS[scale]
        ),
        **pretraining_in_time(results["time"], TURNS[scale]),
        "ratios": ratios,
    }


def arm_seconds(arms: Mapping[str, Sequence[str]], turns: int) -> dict[str, float]:
    """Return the processor seconds of both phases together of each arm, given by its overrides."""
    steps = {}
    for name, own in arms.items():
        timeline = Inputs.open(load_recipe(SMALL, list(own))).plan.timeline
        steps[name] = [phase.steps for phase in timeline.phases]
    begun = step_seconds_in_turn(SMALL, arms, turns)
    tuned = {name: (*own, *AT_ONCE) for name, own in arms.items()}
    ended = step_seconds_in_turn(SMALL, tuned, turns)
    return {
        name: first * median(begun[name]) + second * median(ended[name])
        for name, (first, second) in steps.items()
    }


def pretraining_in_time(runs: Sequence[TrialResult], turns: int) -> Figures:
    """Return the time of a step of each timed arm, and the losses along the runs."""
    timed = step_seconds_in_turn(TIME, {name: overrides_of(name) for name in TIMED}, turns)
    seconds = {name: median(own) for name, own in timed.items()}
    arms = {
        name: asdict(Pretraining.of_runs(own, seconds[name])) for name, own in by_arm(runs).items()
    }
    return {"step_seconds": seconds, "pretraining": arms}


def label_accuracies(runs: Sequence[Path], file_name: str, first: int | None) -> list[float]:
    """Return the share of right labels of each run, of the ``first`` pairs of a file or of all.

    ``file_name`` lies beside the pairs that the run was fine-tuned on. Raises UserError where it is
    missing.
    """
    found = []
    with progress("labels", len(runs), "models") as advance:
        for folder in runs:
            run = load_run(folder)
            index, template, texts = _held_out(run.recipe, file_name)
            model = text_model_of(run)
            pairs = encode_pairs(texts[:first], model.tokenizer)
            layout = pair_layout(run.recipe, index, model.tokenizer)
            answers = likeliest_labels(model, pairs, layout, template)
            found.append(
                fmean(own == pair.labels for own, pair in zip(answers, pairs, strict=True))
            )
            advance(1)
    return found


def accuracies_without_a_model(run: Path, file_name: str, first: int | None) -> dict[str, float]:
    """Return the accuracies of the most frequent label and of a bag of words on the same pairs."""
    recipe = load_recipe(str(run)).recipe
    index, _, texts = _held_out(recipe, file_name)
    beside = label_baselines(recipe, index, texts[:first])
    return {name: figures["accuracy"] for name, figures in beside.items()}


def _held_out(recipe: Recipe, file_name: str) -> tuple[int, PairTemplate, list[PairText]]:
    """Return the phase that learned labels, its template, and the pairs of a file beside them."""
    index, template = labelled_phase(recipe)
    data = recipe.phases[index].pairs
    assert data is not None, "a labelled phase"
    return index, template, read_pairs(data.path.with_name(file_name), template)


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, the table of arms and the drawing."""
    ratios = figures["ratios"]
    if scale is Scale.PAPER:
        figure = bar_figure("Times fewer pre-training FLOPs at 75 %", ratios, "ratio")
        sections = (Section("FLOPs", (), (), [figure]),)
        return Findings((flops_claim(ratios, claims),), sections, figure)
    bits, accuracies = figures["bits_per_byte"], figures["accuracy"]
    beside = figures["without_a_model"]
    arms = {name: Pretraining.from_dict(values) for name, values in figures["pretraining"].items()}
    figure = time_figure(arms, figures["arm_seconds"], accuracies)
    judged = (
        flops_claim(ratios, claims),
        level_claim(accuracies, beside, claims),
        dense_tuning_claim(accuracies, claims),
        small_dense_claim(bits, accuracies, claims),
        time_claim(arms, figures["step_seconds"], claims),
        small_dense_in_time_claim(arms, claims),
    )
    table = arm_table(bits, accuracies, beside)
    words = (
        "Held-out bits per byte after pre-training, and right labels of the test definitions after "
        "fine-tuning, by likelihood; means over seeds. No learning rate was tuned for an arm. A "
        "bag of words, which reads no order and was not pre-trained, stands beside the models."
    )
    in_time = (
        "Wider arms, pre-trained for the same time. Seconds are processor time of one thread: the "
        "median of an arm's steps, times their number. These steps were timed after the runs, in "
        "turn with those of the other arms; other programs lengthen a step on the clock, and not "
        "all arms alike. Validation is not counted."
    )
    sections = (
        Section("Arms", [words], [table], [accuracy_figure(accuracies, beside)]),
        Section("Time", [in_time], [time_table(arms)], [figure]),
    )
    return Findings(judged, sections, figure)


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


def level_claim(
    accuracies: BySeed, without_a_model: Mapping[str, float], claims: StatedClaims
) -> Claim:
    """Judge sparse pre-training where fine-tuning is dense.

    ``without_a_model`` holds the accuracies of simple baselines.
    """
    name = "sparse-then-dense-is-level"
    close, learned = claims.limit(name, "close"), claims.limit(name, "learned")
    dense, most_frequent = fmean(accuracies[DENSE]), without_a_model[MOST_FREQUENT]
    has_learned = dense > most_frequent + learned
    is_easy = max(without_a_model.values()) > dense - close
    differences = {arm: paired(accuracies[arm], accuracies[DENSE]) for arm in (HALF, SPARSE)}
    held = has_learned and all(lowest(own) >= -close for own in differences.values())
    told = ", ".join(f"{arm} {shown(values)}" for arm, values in accuracies.items())
    beside = ", ".join(f"{label} {value:.1%}" for label, value in without_a_model.items())
    against = ", ".join(f"{arm} {signed(own)}" for arm, own in differences.items())
    reading = "" if has_learned else "nothing_learned"
    return claims.judged(
        name,
        f"right labels of held-out definitions: {told}; without a model: {beside}; "
        f"against dense: {against}; {UNTUNED}",
        held=held,
        reading="held_on_an_easy_task" if held and is_easy else reading,
        close_points=100 * close,
        learned_points=100 * learned,
        most_frequent=most_frequent,
    )


def dense_tuning_claim(accuracies: BySeed, claims: StatedClaims) -> Claim:
    """Judge dense fine-tuning of a sparse model against masks that stay."""
    freed = paired(accuracies[SPARSE], accuracies[MASKS_KEPT])
    return claims.judged(
        "dense-fine-tuning-helps",
        f"75 % sparse, fine-tuned dense {shown(accuracies[SPARSE])}, with its masks "
        f"{shown(accuracies[MASKS_KEPT])}: {signed(freed)}; {UNTUNED}",
        held=len(freed) > 1 and lowest(freed) > 0,
    )


def small_dense_claim(bits: BySeed, accuracies: BySeed, claims: StatedClaims) -> Claim:
    """Judge a wide sparse model against a narrow dense one with as many weights in its blocks."""
    gain = Gain.of(bits[SPARSE], bits[SMALL_DENSE])
    return claims.lower(
        "sparse-beats-small-dense",
        f"after pre-training on the same tokens {fmean(bits[SPARSE]):.4f} held-out bits per "
        f"byte at 75 %, {fmean(bits[SMALL_DENSE]):.4f} of the dense model with its block weights "
        f"({gain.lower_or_higher}); right labels {shown(accuracies[SPARSE])} and "
        f"{shown(accuracies[SMALL_DENSE])}; {UNTUNED}",
        gain,
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


def pretrained_bits(run: TrialResult) -> float:
    """Return the held-out bits per byte at the end of pre-training."""
    end = ends_of_phases(validation_curve(run.folder))[PRETRAIN]
    return fmean(end.bits_per_byte.values())


def arm_table(bits: BySeed, accuracies: BySeed, beside: dict[str, float]) -> Table:
    """Return a table with a row for each arm and for each baseline without a model."""
    rows = [
        [name, f"{fmean(bits[name]):.4f}", shown(values)] for name, values in accuracies.items()
    ]
    rows += [[name, "", f"{value:.1%}"] for name, value in beside.items()]
    return Table(["arm", "bits per byte", "right labels"], rows)


def accuracy_figure(accuracies: BySeed, beside: dict[str, float]) -> Figure:
    """Draw the share of right labels by arm."""
    bars = {name: 100 * fmean(values) for name, values in accuracies.items()}
    bars |= {name: 100 * value for name, value in beside.items()}
    return bar_figure("Organ systems of held-out definitions", bars, "% right, no rate tuned")


def paired(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the differences seed by seed."""
    return [own - other for own, other in zip(values, others, strict=True)]


def lowest(values: Sequence[float]) -> float:
    """Return the lower end of the mean's 95 % interval; for one seed, which has none, its value."""
    return fmean(values) - (half_width(values) or 0.0)


def shown(values: Sequence[float]) -> str:
    """Word a mean share and half its 95 % interval."""
    half = half_width(values)
    spread = "one seed" if half is None else f"+- {half:.1%}"
    return f"{fmean(values):.1%} ({spread})"


def signed(differences: Sequence[float]) -> str:
    """Word a mean difference in points and half its 95 % interval."""
    half = half_width(differences)
    spread = "one seed" if half is None else f"+- {half * 100:.1f}"
    return f"{fmean(differences) * 100:+.1f} points ({spread})"


PAPER = Paper(
    name="mediswift",
    folder=Path(__file__).parent,
    data=Data(SMALL),
    stages=stages,
    measure=measure,
    judge=judge,
)
