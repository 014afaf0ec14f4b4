"""What MediSwift says of sparse pre-training and dense fine-tuning, against what was measured."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from feldspar.reproduce.claims import Claim, judged, not_run
from feldspar.reproduce.ladder import Gain

DENSE, HALF, SPARSE = "dense", "50%", "75%"
MASKS_KEPT, SMALL_DENSE = "75%, masks kept", "small dense"
PRINTED_RATIOS = {"med": 2.03, "large": 2.25, "xl": 2.53}
"""How many times fewer training FLOPs 75 % takes, as the paper prints it."""
LEARNED = 0.1
"""What the dense model has to find beyond the most frequent label for a comparison to mean
anything."""
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
        "are those that give the printed sizes and ratios, so this shows the rule they follow.",
        why_not="The shapes that we infer give other ratios.",
    )


def accuracy_claims(accuracies: BySeed, most_frequent: float, cost: str) -> list[Claim]:
    """What sparse pre-training costs where fine-tuning is dense, and what dense fine-tuning is
    worth; ``most_frequent`` is the accuracy of one label for all."""
    learned = fmean(accuracies[DENSE]) > most_frequent + LEARNED
    told = ", ".join(f"{name} {shown(values)}" for name, values in accuracies.items())
    differences = {name: paired(accuracies[name], accuracies[DENSE]) for name in (HALF, SPARSE)}
    freed = paired(accuracies[SPARSE], accuracies[MASKS_KEPT])
    return [
        judged(
            "sparse-then-dense-is-level",
            statement="Pre-trained 50 or 75 % sparse and fine-tuned dense, a model does as well as "
            "one that was dense throughout.",
            paper="PubMedQA: dense XL 76.8 %, sparse ones on the frontier of accuracy and FLOPs",
            ours=f"right labels of held-out definitions: {told}; against dense: "
            + ", ".join(f"{name} {signed(own)}" for name, own in differences.items()),
            tolerance=f"each at most {CLOSE * 100:.0f} points below dense, which is more than "
            f"{LEARNED * 100:.0f} above the most frequent label ({most_frequent:.1%})",
            held=learned and all(fmean(own) >= -CLOSE for own in differences.values()),
            same_quantity=False,
            why="The same seeds, text and pairs; the masks fall before fine-tuning.",
            why_not="So small a network misses the weights that were masked."
            if learned
            else "No arm has learned the task.",
            cost=cost,
        ),
        judged(
            "dense-fine-tuning-helps",
            statement="Dense fine-tuning of a sparse model is better than keeping its masks.",
            paper="SPDF and MediSwift fine-tune dense; no figure for masks kept",
            ours=f"75 % sparse, fine-tuned dense {shown(accuracies[SPARSE])}, with its masks "
            f"{shown(accuracies[MASKS_KEPT])}: {signed(freed)}",
            tolerance="higher by more than twice the error of the mean",
            held=fmean(freed) > 2 * error_of(freed),
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
        f"{shown(accuracies[SMALL_DENSE])}",
        tolerance=f"bits per byte lower by more than {gain.threshold:.2%}",
        held=gain.is_clear,
        same_quantity=False,
        why="The same text; width at equal weights.",
        why_not="No learning rate was tuned for either.",
        cost=cost,
    )


def time_claim(seconds_per_step: BySeed, cost: str) -> Claim:
    """What a step takes here."""
    means = {name: fmean(values) for name, values in seconds_per_step.items()}
    saved = Gain.of(seconds_per_step[SPARSE], seconds_per_step[DENSE])
    return judged(
        "time-saved",
        statement="Fewer FLOPs are less time.",
        paper="trained on a machine that skips zeros",
        ours=f"a step of pre-training: {means[DENSE] * 1e3:.0f} ms dense, "
        f"{means[SPARSE] * 1e3:.0f} ms at 75 % ({saved.worded('less', 'more')}): FLOPs not "
        "realised",
        tolerance="a step at 75 % takes at most half of a dense one",
        held=means[SPARSE] <= means[DENSE] / 2,
        same_quantity=False,
        why="Masked products are skipped.",
        why_not="Masked matrices are multiplied dense, here and on GPUs at this sparsity.",
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


def error_of(values: Sequence[float]) -> float:
    """Standard error of the mean; infinite for one seed."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("inf")


def shown(values: Sequence[float]) -> str:
    """A mean share with its error."""
    error = error_of(values)
    spread = "one seed" if len(values) == 1 else f"+- {error:.1%}"
    return f"{fmean(values):.1%} ({spread})"


def signed(differences: Sequence[float]) -> str:
    """A mean difference in points, with its error."""
    error = error_of(differences)
    spread = "one seed" if len(differences) == 1 else f"+- {error * 100:.1f}"
    return f"{fmean(differences) * 100:+.1f} points ({spread})"
