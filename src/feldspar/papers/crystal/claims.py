"""What Crystal says of its phases, and of filling gaps, against what was measured."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from feldspar.evaluate.tasks.filled_gaps import InfillingScore
from feldspar.papers.crystal.text_kinds import CODE_KIND, LANGUAGE_KIND, Bits
from feldspar.papers.kit.claims import Claim, judged, not_run
from feldspar.papers.kit.ladder import CLEARLY, Gain

PUBLISHED = "as published"
LITTLE = 0.02
"""What fill-in-the-middle may cost where text is read from left to right, as a share."""


def phase_claim(bits: Bits, cost: str) -> Claim:
    """Both kinds of text gain from each of the first two phases."""
    (first, second), names = list(bits.values())[:2], list(bits)[:2]
    gains = {kind: Gain.of(second[kind], first[kind]) for kind in (LANGUAGE_KIND, CODE_KIND)}
    told = "; ".join(
        f"{kind}: {fmean(first[kind]):.4f} after phase {names[0]}, {fmean(second[kind]):.4f} after "
        f"phase {names[1]} ({gain.lower_or_higher})"
        for kind, gain in gains.items()
    )
    return judged(
        "both-phases-help-both-kinds",
        statement="Language and code both go on improving through phase 1 and phase 2.",
        paper="most benchmarks improve steadily through both phases",
        ours=f"held-out bits per byte, {told}",
        tolerance=f"both kinds lower {CLEARLY}",
        held=all(gain.is_clear for gain in gains.values()),
        same_quantity=False,
        why="A third of phase 2 is language: enough to go on learning it beside code.",
        why_not="One kind of text did not gain from the second phase.",
        cost=cost,
    )


def infilling_claims(
    bits: Mapping[str, Bits], filled: Mapping[str, Sequence[InfillingScore]], cost: str
) -> list[Claim]:
    """What fill-in-the-middle brings, and what it costs."""
    with_, without = bits[PUBLISHED], bits["left to right"]
    phase = list(with_)[1]
    own, other = with_[phase][CODE_KIND], without[phase][CODE_KIND]
    loss = Gain.of(own, other)
    middles = {name: [bits_of(score) for score in scores] for name, scores in filled.items()}
    gained = Gain.of(middles[PUBLISHED], middles["left to right"])
    scores = filled[PUBLISHED]
    suffix = Gain.of([own.nats for own in scores], [own.nats_left_to_right for own in scores])
    return [
        judged(
            "infilling-is-learned",
            statement="Nine tenths of the code rearranged teach a model to fill gaps.",
            paper="StarCoder with fill-in-the-middle at rate 0.9; no figure printed",
            ours="middle of held-out code after prefix and suffix: "
            f"{fmean(middles[PUBLISHED]):.4f} bits per byte, {gained.lower_or_higher} than "
            f"without such training ({fmean(middles['left to right']):.4f}), and "
            f"{suffix.lower_or_higher} than the same middles after the prefix alone",
            tolerance="lower than without such training, and than after the prefix alone, each "
            f"{CLEARLY}",
            held=gained.is_clear and suffix.is_clear,
            same_quantity=False,
            why="The same seeds and text; only the arrangement of code differs.",
            why_not="So few tokens teach what the marks mean, not yet what to read from a suffix.",
            cost=cost,
        ),
        judged(
            "infilling-costs-little",
            statement="Code is read from left to right almost as well for it.",
            paper="rate 0.9 in the whole of phase 2; no figure printed",
            ours=f"held-out code after phase {phase}: {fmean(own):.4f} bits per byte with, "
            f"{fmean(other):.4f} without ({loss.lower_or_higher})",
            tolerance=f"higher by at most {LITTLE:.0%}, the whole interval",
            held=loss.is_at_least(-LITTLE),
            same_quantity=False,
            why="Rearranged text holds the same tokens, most of them in order.",
            why_not="A tenth of plain order is too little at this size.",
            cost=cost,
        ),
    ]


def last_phase_claim(bits: Mapping[str, Bits], cost: str) -> Claim:
    """What the last phase does to language, with and without replay."""
    before, after = list(bits[PUBLISHED].values())[1:3]
    bare = list(bits["no replay"].values())[2]
    kept = Gain.of(after[LANGUAGE_KIND], bare[LANGUAGE_KIND])
    forgotten = Gain.of(bare[LANGUAGE_KIND], before[LANGUAGE_KIND])
    return judged(
        "replay-keeps-language",
        statement="A last phase on code alone costs language; replaying a little keeps it.",
        paper="phase 3, with 17 % of replay, brought no gain (a negative result of the paper)",
        ours=f"language: {fmean(before[LANGUAGE_KIND]):.4f} before the last phase, "
        f"{fmean(bare[LANGUAGE_KIND]):.4f} after it without replay ({forgotten.lower_or_higher}), "
        f"{fmean(after[LANGUAGE_KIND]):.4f} with ({kept.lower_or_higher} than without)",
        tolerance="without replay higher than before, with replay lower than without, each "
        f"{CLEARLY}",
        held=kept.is_clear and Gain.of(before[LANGUAGE_KIND], bare[LANGUAGE_KIND]).is_clear,
        same_quantity=False,
        why="The same seeds, rates and tokens; only the mixture of the last phase differs.",
        why_not="The last phase is too short to forget much.",
        cost=cost,
    )


def order_claim(bits: Mapping[str, Bits], cost: str) -> Claim:
    """Language first against the same text pooled."""
    phased, (pooled,) = list(bits[PUBLISHED].values())[1], bits["pooled"].values()
    gains = {kind: Gain.of(phased[kind], pooled[kind]) for kind in (LANGUAGE_KIND, CODE_KIND)}
    told = "; ".join(
        f"{kind} {fmean(phased[kind]):.4f} in phases, {fmean(pooled[kind]):.4f} pooled ("
        f"{gain.lower_or_higher})"
        for kind, gain in gains.items()
    )
    return judged(
        "order-balances",
        statement="Language first, then mostly code, balances the two better than one mixture.",
        paper="mean of language and code 41.65 after 1.27 T tokens, Llama-2-7B 34.98 after 2 T",
        ours=f"at equal text, {told}",
        tolerance=f"lower for both kinds {CLEARLY}",
        held=all(gain.is_clear for gain in gains.values()),
        same_quantity=False,
        why="The same text in another order.",
        why_not="Not both kinds are lower by more than the seeds differ.",
        cost=cost,
    )


def benchmark_claim(cost: str) -> Claim:
    """What only a 7B model can show."""
    return not_run(
        "benchmarks",
        statement="One model for language and code with fewer tokens.",
        paper="HumanEval 28.38, MMLU 48.78 after 1.27 T tokens",
        reason="A model of this size is at chance on these tasks.",
        cost=cost,
    )


def bits_of(score: InfillingScore) -> float:
    """Bits per byte of the middles; infinite where none was scored."""
    found = score.as_dict()["bits_per_byte"]
    return float("inf") if found is None else found
