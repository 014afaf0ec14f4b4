"""What is claimed of bilingual adaptation (2407.12869), held against runs on a cipher."""

from collections.abc import Mapping, Sequence

from feldspar.papers.kit.claims import Claim, judged
from feldspar.papers.kit.ladder import CLEARLY, Gain

ENGLISH, NEW, LARGE_NEW = "english", "cipher", "arabic"
"""The old language and the new one, at small scale and at the paper's."""
INITIALISATIONS = ("subword_mean", "random", "mean", "normal_matched")
"""How new rows begin; the first is the one that training goes on with."""
NONE = "no extension"
KEPT = 0.01
"""A loss that is higher by no more than this share was kept."""

Bits = Mapping[str, Mapping[str, Sequence[float]]]
"""Held-out bits per byte of every seed, by what was trained and by language."""


def token_tax(words: Mapping[str, Mapping[str, float]], cost: str) -> Claim:
    """Fewer tokens a word of the new language, as many of the old."""
    old, new = words["old"], words["new"]
    return judged(
        "token-tax",
        statement="Extending the vocabulary removes the token tax of the new language.",
        paper="Arabic 5.06 to 1.41 tokens a word with 32,000 tokens more (second-hand)",
        ours=f"cipher {old[NEW]:.2f} to {new[NEW]:.2f} tokens a word, English {old[ENGLISH]:.2f} "
        f"to {new[ENGLISH]:.2f}",
        tolerance="at most half as many, English as before",
        held=new[NEW] <= old[NEW] / 2 and new[ENGLISH] == old[ENGLISH],
        same_quantity=False,
        why="New merges join letters that the old vocabulary spells one by one.",
        why_not="The new pieces do not cover the text, or English changed.",
        cost=cost,
        counted=True,
    )


def rows_begin(begun: Bits, first: Bits, cost: str) -> Claim:
    """Rows that know their pieces against rows that know nothing."""
    best, *others = INITIALISATIONS
    gains = {name: Gain.of(begun[best][NEW], begun[name][NEW]) for name in others}
    after = {name: Gain.of(first[best][NEW], first[name][NEW]) for name in others}
    told = ", ".join(
        f"{gains[name].worded('lower', 'higher')} than of {name}, "
        f"{after[name].worded('lower', 'higher')} after stage 1"
        for name in others
    )
    return judged(
        "rows",
        statement="New rows made of what the model knows begin better than rows without meaning.",
        paper="rows by similarity or projection (figures not obtained)",
        ours=f"bits per byte of {best} are {told}",
        tolerance=f"lower than each before training {CLEARLY}",
        held=all(gain.is_clear for gain in gains.values()),
        same_quantity=False,
        why="The mean of its old pieces' rows tells a new token from others at once.",
        why_not="Some rows without meaning begin as well.",
        cost=cost,
    )


def first_stage_keeps(begun: Bits, first: Bits, cost: str) -> Claim:
    """English after training embeddings alone."""
    gain = Gain.of(first[INITIALISATIONS[0]][ENGLISH], begun[NONE][ENGLISH])
    return judged(
        "first-stage",
        statement="Embeddings trained first, with the rest frozen, leave the old language whole.",
        paper="about 15 B tokens of stage 1; the cause is named, not measured",
        ours=f"English bits per byte {gain.lower_or_higher} than of the base model",
        tolerance=f"higher by at most {KEPT:.0%}, the whole interval",
        held=gain.is_at_least(-KEPT),
        same_quantity=False,
        why="What computes is frozen; only competition in the softmax is new.",
        why_not="English lost more, or the seeds do not tell.",
        cost=cost,
    )


def two_stages(second: Bits, once: Mapping[str, Sequence[float]], cost: str) -> Claim:
    """Two stages against everything from the start."""
    own = second["1:1"]
    english, new = (Gain.of(own[name], once[name]) for name in (ENGLISH, NEW))
    return judged(
        "two-stages",
        statement="Two stages damage the model less than training everything from the start.",
        paper="new embeddings have higher norms, so that they are trained first",
        ours=f"after as many tokens English is {english.worded('lower', 'higher')}, the cipher "
        f"{new.worded('lower', 'higher')}",
        tolerance=f"English lower {CLEARLY}",
        held=english.is_clear,
        same_quantity=False,
        why="Gradients of untrained rows do not reach the frozen layers.",
        why_not="English is not lower: a short run may recover by itself, or learn more meanwhile.",
        cost=cost,
    )


def both_gain(begun: Bits, first: Bits, second: Bits, cost: str) -> Claim:
    """The second stage in both languages."""
    new = Gain.of(second["1:1"][NEW], first[INITIALISATIONS[0]][NEW])
    english = Gain.of(second["1:1"][ENGLISH], begun[NONE][ENGLISH])
    return judged(
        "both-gain",
        statement="Training on both languages gains in the new one and slightly in English.",
        paper="Arabic gains, English slightly (abstract)",
        ours=f"the cipher is {new.worded('lower', 'higher')} than after stage 1, English "
        f"{english.worded('lower', 'higher')} than of the base model",
        tolerance=f"both lower {CLEARLY}",
        held=new.is_clear and english.is_clear,
        same_quantity=False,
        why="Text of both is read, and the base had not read its fill.",
        why_not="One of the two did not gain by more than the seeds differ.",
        cost=cost,
    )


def forgetting(second: Bits, cost: str) -> Claim:
    """The new language alone against a tenth of English."""
    gain = Gain.of(second["9:1"][ENGLISH], second["1:0"][ENGLISH])
    return judged(
        "forgetting",
        statement="Mixing in the old language prevents that it is forgotten.",
        paper="both languages in every stage",
        ours=f"English with a tenth of it is {gain.worded('lower', 'higher')} than without",
        tolerance=f"lower {CLEARLY}",
        held=gain.is_clear,
        same_quantity=False,
        why="What is no longer read is no longer held against the update.",
        why_not="Nothing was forgotten in so few steps.",
        cost=cost,
    )


def english_helps(second: Bits, language: str, cost: str) -> Claim:
    """Much English against little, for the new language."""
    gain = Gain.of(second["1:1"][language], second["9:1"][language])
    return judged(
        "english-helps",
        statement="More English in the mixture helps the new language too.",
        paper="1:1 reaches a lower Arabic loss than 9:1 (second-hand)",
        ours=f"the new language with 1:1 is {gain.worded('lower', 'higher')} than with 9:1",
        tolerance=f"lower {CLEARLY}",
        held=gain.is_clear,
        same_quantity=language == LARGE_NEW,
        why="The languages share what the model knows.",
        why_not="That needs transfer; here each language prefers its own text.",
        cost=cost,
    )
