"""What MediSwift says of sparse pre-training and dense fine-tuning, against what was measured."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from feldspar.core.student_t import half_width
from feldspar.papers.kit.claims import Claim, judged, not_run
from feldspar.papers.kit.ladder import Gain

DENSE, HALF, SPARSE = "dense", "50%", "75%"
MASKS_KEPT, SMALL_DENSE = "75%, masks kept", "small dense"
PRINTED_RATIOS = {"med": 2.03, "large": 2.25, "xl": 2.53}
"""How many times fewer training FLOPs 75 % takes, as the paper prints it."""
LEARNED = 0.1
"""What the dense model has to find beyond the most frequent label for a comparison to mean
anything."""
MOST_FREQUENT = "most frequent label"
"""Baselines without a model, as the evaluation of labels names them."""
UNTUNED = "no learning rate was tuned for an arm"
CLOSE = 0.02
"""Accuracies that differ by no more are held to be level: two points."""

BySeed = Mapping[str, Sequence[float]]
"""A figure of each seed, by arm."""


def flops_claim(ratios: Mapping[str, float]) -> Claim:
    """The ratio of FLOPs, from the planner's ledger."""
    printed = ", ".join(f"{size} {ratio}" for size, ratio in PRINTED_RATIOS.items())
    ours = ", ".join(f"{size} {ratio:.3f}" for size, ratio in ratios.items())
    return judged(
        "fewer-flops",
        statement="75 % sparsity takes 2 to 2.5 times fewer pre-training FLOPs.",
        paper=f"{printed} times fewer",
        ours=f"{ours} times fewer, by the plan's ledger (attention and head stay dense)",
        tolerance="each within 0.01 of the printed ratio",
        held=all(abs(ratios[size] - ratio) < 0.01 for size, ratio in PRINTED_RATIOS.items()),
        same_quantity=False,
        why="Counted from shapes and masks. Layers, widths and vocabulary are not printed: ours "
        "are those that give the printed sizes and ratios, so that this shows the rule they "
        "follow.",
        why_not="The shapes that we infer give other ratios.",
        counted=True,
    )


def accuracy_claims(
    accuracies: BySeed, without_a_model: Mapping[str, float], cost: str
) -> list[Claim]:
    """Judge what sparse pre-training costs where fine-tuning is dense, and what dense fine-tuning
    is worth; ``without_a_model`` holds the accuracies of simple baselines."""
    most_frequent = without_a_model[MOST_FREQUENT]
    is_easy = max(without_a_model.values()) > fmean(accuracies[DENSE]) - CLOSE
    easy = " No model is needed for this task: it says little of what pre-training is worth."
    easy = easy if is_easy else ""
    learned = fmean(accuracies[DENSE]) > most_frequent + LEARNED
    told = ", ".join(f"{name} {shown(values)}" for name, values in accuracies.items())
    beside = ", ".join(f"{name} {value:.1%}" for name, value in without_a_model.items())
    differences = {name: paired(accuracies[name], accuracies[DENSE]) for name in (HALF, SPARSE)}
    freed = paired(accuracies[SPARSE], accuracies[MASKS_KEPT])
    return [
        judged(
            "sparse-then-dense-is-level",
            statement="Pre-trained 50 or 75 % sparse and fine-tuned dense, a model does as well as "
            "one that was dense throughout.",
            paper="PubMedQA: dense XL 76.8 %, sparse ones on the frontier of accuracy and FLOPs",
            ours=f"right labels of held-out definitions: {told}; without a model: {beside}; "
            "against dense: "
            + ", ".join(f"{name} {signed(own)}" for name, own in differences.items())
            + f"; {UNTUNED}",
            tolerance=f"each interval at most {CLOSE * 100:.0f} points below dense, which is more "
            f"than {LEARNED * 100:.0f} above the most frequent label ({most_frequent:.1%})",
            held=learned and all(lowest(own) >= -CLOSE for own in differences.values()),
            same_quantity=False,
            why="The same seeds, text and pairs; the masks fall before fine-tuning." + easy,
            why_not="So small a network misses the weights that were masked, or the seeds do not "
            "tell."
            if learned
            else "No arm has learned the task.",
            cost=cost,
        ),
        judged(
            "dense-fine-tuning-helps",
            statement="Dense fine-tuning of a sparse model is better than keeping its masks.",
            paper="SPDF and MediSwift fine-tune dense; no figure for masks kept",
            ours=f"75 % sparse, fine-tuned dense {shown(accuracies[SPARSE])}, with its masks "
            f"{shown(accuracies[MASKS_KEPT])}: {signed(freed)}; {UNTUNED}",
            tolerance="higher, with a 95% interval above zero",
            held=len(freed) > 1 and lowest(freed) > 0,
            same_quantity=False,
            why="Fine-tuning gets four times the weights back.",
            why_not="What the masked weights could add is not above the noise of the seed.",
            cost=cost,
        ),
    ]


def small_dense_claim(bits: BySeed, accuracies: BySeed, cost: str) -> Claim:
    """A wide sparse model against a narrow dense one of as many weights in its blocks."""
    gain = Gain.of(bits[SPARSE], bits[SMALL_DENSE])
    return judged(
        "sparse-beats-small-dense",
        statement="A sparse model is better than a dense one with as many weights.",
        paper="larger sparse models on the frontier of accuracy and FLOPs (figure)",
        ours=f"after pre-training on the same tokens {fmean(bits[SPARSE]):.4f} held-out bits per "
        f"byte at 75 %, {fmean(bits[SMALL_DENSE]):.4f} of the dense model with its block weights "
        f"({gain.lower_or_higher}); right labels {shown(accuracies[SPARSE])} and "
        f"{shown(accuracies[SMALL_DENSE])}; {UNTUNED}",
        tolerance=f"bits per byte lower by {gain.needed}",
        held=gain.is_clear,
        same_quantity=False,
        why="The same text; width at equal weights.",
        why_not="The gain is not above the noise of the seed.",
        cost=cost,
    )


def time_claim(cost: str) -> Claim:
    """Say why no time is measured here."""
    return not_run(
        "time-saved",
        statement="Fewer FLOPs are less time.",
        paper="trained on a machine that skips zeros",
        reason="Masked matrices are multiplied dense here, so that no time can be saved.",
        cost=cost,
    )


def benchmark_claim(cost: str) -> Claim:
    """What needs PubMed, PubMedQA and GPUs."""
    return not_run(
        "pubmedqa",
        statement="The dense XL model reaches 76.8 % on PubMedQA, beating models up to 7B.",
        paper="76.8 % (reasoning required)",
        reason="Neither PubMed nor PubMedQA is on the package index.",
        cost=cost,
    )


def paired(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Differences seed by seed."""
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
