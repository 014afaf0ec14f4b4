"""The claims on bilingual adaptation, judged by the measured figures, and their tables."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from feldspar.papers.bilingual.figures import (
    APART,
    ENGLISH,
    INITIALISATIONS,
    LARGE_NEW,
    MIXED,
    MIXTURES,
    NEW,
    NONE,
    Bits,
    Damage,
    old_language,
)
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain, power
from feldspar.papers.kit.paper import Figures, Findings, Scale
from feldspar.papers.kit.stated import StatedClaims
from feldspar.report.canvas import Figure
from feldspar.report.figures import Series, half_widths_of, line_figure
from feldspar.report.page import Section, Table

BEST, EQUAL, LITTLE, ALONE = INITIALISATIONS[0], *MIXTURES
Named = Mapping[str, Bits]
"""Bits per byte by the name of what was trained."""


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and drawings."""
    if scale is Scale.PAPER:
        second = figures["second"]
        section = Section("Mixtures", [BITS], [bits_table(second, (LARGE_NEW,))])
        return Findings((english_helps(second, LARGE_NEW, claims),), (section,), None)
    return (judge_open if scale is Scale.OPEN else judge_trunk)(figures, claims)


def judge_trunk(figures: Figures, claims: StatedClaims) -> Findings:
    """Judge the runs that start from the trunk."""
    begun, first, second = figures["begun"], figures["first"], figures["second"]
    judged = (
        token_tax(figures["words"], claims),
        first_stage_keeps(begun[NONE], first, claims),
        two_stages(figures["damage"], claims),
        both_gain(begun[NONE], first, second[EQUAL], claims),
        forgetting(second, claims),
        english_helps(second, NEW, claims),
    )
    points = {
        "the untouched trunk": begun[NONE],
        "new rows, before training": begun[BEST],
        "stage 1": first,
        **{f"stages 1 and 2, {name}": bits for name, bits in second.items()},
        f"everything at once, {EQUAL}": figures["once"],
    }
    table = bits_table(points, (NEW, *ENGLISH))
    figure = damage_figure(figures["damage"])
    return Findings(
        judged, (Section("Bits per byte", [BITS], [table], [figure]),), figure, (table,)
    )


def judge_open(figures: Figures, claims: StatedClaims) -> Findings:
    """Judge the runs that start from an open model."""
    begun, first, area = figures["begun"], figures["first"], figures["area"]
    judged = (
        token_tax(figures["words"], claims),
        rows_begin(begun, area, claims),
        first_stage_keeps(begun[NONE], first[BEST], claims),
    )
    table = rows_table(begun, area, first)
    figure = rows_figure(begun, first)
    return Findings(judged, (Section("New rows", [BITS], [table], [figure]),), figure, (table,))


def token_tax(words: Mapping[str, Mapping[str, float]], claims: StatedClaims) -> Claim:
    """Judge the tokens a word of both languages, before and after the extension."""
    old, new = words["old"], words["new"]
    kept = all(new[text] == old[text] for text in old if text != NEW)
    is_short = new[NEW] <= old[NEW] * claims.limit("token-tax", "share")
    told = ", ".join(f"{text} {old[text]:.2f} to {new[text]:.2f}" for text in old)
    return claims.judged("token-tax", f"tokens a word: {told}", held=is_short and kept)


def rows_begin(begun: Named, area: Mapping[str, Sequence[float]], claims: StatedClaims) -> Claim:
    """Judge rows that know their pieces against rows that know nothing."""
    others = [name for name in INITIALISATIONS if name != BEST]
    before = {name: Gain.of(begun[BEST][NEW], begun[name][NEW]) for name in others}
    during = {name: Gain.of(area[BEST], area[name]) for name in others}
    base = paired(begun[BEST][NEW], begun[NONE][NEW])
    told = "; ".join(
        f"than with {name} {before[name].lower_or_higher} before training, the loss of stage 1 "
        f"{during[name].lower_or_higher}"
        for name in others
    )
    return claims.lower(
        "rows",
        f"bits per byte of {NEW} with {BEST}: {told}; than of the untouched base "
        f"{base.lower_or_higher}",
        *before.values(),
        *during.values(),
    )


def first_stage_keeps(base: Bits, first: Bits, claims: StatedClaims) -> Claim:
    """Judge the old language after training new rows alone."""
    gain = paired(old_language(first), old_language(base))
    return claims.kept(
        "first-stage",
        f"English bits per byte {gain.lower_or_higher} than of the base model{power(gain)}",
        gain,
    )


def two_stages(damage: Mapping[str, Damage], claims: StatedClaims) -> Claim:
    """Judge the old language on the way against everything trained from the start."""
    two, once = damage["two stages"], damage["everything at once"]
    peak, area = (Gain.of(two[key], once[key]) for key in ("peak", "area"))
    return claims.lower(
        "two-stages",
        f"the peak of English bits per byte is {peak.lower_or_higher} with two stages{power(peak)}"
        f", their mean over the steps {area.lower_or_higher}{power(area)}",
        peak,
        area,
    )


def both_gain(base: Bits, first: Bits, second: Bits, claims: StatedClaims) -> Claim:
    """Judge the gain of both languages in the second stage."""
    new = Gain.of(second[NEW], first[NEW])
    mixed, apart = (Gain.of(second[text], base[text]) for text in ENGLISH)
    return claims.lower(
        "both-gain",
        f"{NEW} is {new.lower_or_higher} than after stage 1, {MIXED} {mixed.lower_or_higher} than "
        f"of the untouched trunk{power(mixed)}; {APART}, which is not mixed in, "
        f"{apart.lower_or_higher}",
        new,
        mixed,
    )


def forgetting(second: Named, claims: StatedClaims) -> Claim:
    """Judge the new language alone against a little of the old one, on both its texts."""
    gains = {text: Gain.of(second[LITTLE][text], second[ALONE][text]) for text in ENGLISH}
    told = ", ".join(f"{text} {gain.lower_or_higher}{power(gain)}" for text, gain in gains.items())
    return claims.lower(
        "forgetting", f"with a tenth of {MIXED} than with none: {told}", *gains.values()
    )


def english_helps(second: Named, language: str, claims: StatedClaims) -> Claim:
    """Judge much of the old language against little, for the new one."""
    gain = Gain.of(second[EQUAL][language], second[LITTLE][language])
    alone = ""
    if ALONE in second:
        than = Gain.of(second[EQUAL][language], second[ALONE][language])
        alone = f", {than.lower_or_higher} than with {ALONE}"
    return claims.lower(
        "english-helps",
        f"{language} with {EQUAL} is {gain.lower_or_higher} than with {LITTLE}{power(gain)}{alone}",
        gain,
    )


def paired(ours: Sequence[float], base: Sequence[float]) -> Gain:
    """Return the gain over ``base`` for the seeds that both were measured with."""
    count = min(len(ours), len(base))
    return Gain.of(ours[:count], base[:count])


BITS = "Held-out bits per byte, mean over seeds. A Cyrillic letter has two bytes."


def bits_table(points: Named, texts: Sequence[str]) -> Table:
    """Return a row for each name, a column for each text."""
    rows = [
        [name, *(f"{fmean(bits[text]):.4f}" for text in texts)] for name, bits in points.items()
    ]
    return Table(["held-out bits per byte", *texts], rows)


def rows_table(begun: Named, area: Mapping[str, Sequence[float]], first: Named) -> Table:
    """Return a row for each kind of new rows, before training and after stage 1."""
    header = [
        "rows",
        f"{NEW}, before training",
        f"{MIXED}, before training",
        "mean loss of stage 1, nats a token",
        f"{NEW}, after stage 1",
        f"{MIXED}, after stage 1",
    ]
    rows = []
    for name, bits in begun.items():
        after = (
            [f"{fmean(first[name][text]):.4f}" for text in (NEW, MIXED)] if name in first else []
        )
        trained = [f"{fmean(area[name]):.4f}", *after] if after else ["", "", ""]
        rows.append([name, *(f"{fmean(bits[text]):.4f}" for text in (NEW, MIXED)), *trained])
    return Table(header, rows)


def damage_figure(damage: Mapping[str, Damage]) -> Figure:
    """Draw the old language's loss on the way, a line for two stages and one for all at once."""
    series = [
        Series(name, own["steps"], own["curve"], "points", is_reference=index > 0)
        for index, (name, own) in enumerate(damage.items())
    ]
    peaks = ", ".join(f"{max(own['curve']):.3f} with {name}" for name, own in damage.items())
    title = f"While everything is trained, English rises to this many bits per byte: {peaks}"
    return line_figure(title, series, "steps", "bits per byte, mean over seeds")


def rows_figure(begun: Named, first: Named) -> Figure:
    """Draw the new language before and after stage 1, a line for each kind of rows."""
    series = []
    for name, after in first.items():
        points = [begun[name][NEW][: len(after[NEW])], after[NEW]]
        means, halves = [fmean(bits) for bits in points], half_widths_of(points)
        label = name.replace("_", " ")
        series.append(Series(label, [0, 1], means, "points", halves, is_reference=name != BEST))
    ends = ", ".join(f"{item.label} {item.y[-1]:.3f}" for item in series)
    title = f"Bits per byte of the new language after stage 1, by the beginning of its rows: {ends}"
    ticks = {0.0: "before training", 1.0: "after stage 1"}
    return line_figure(title, series, "", "bits per byte, 95 % over seeds", ticks=ticks)
