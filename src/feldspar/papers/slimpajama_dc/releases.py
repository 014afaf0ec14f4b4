"""Duplicates removed nowhere, within sources or across them: sources that are releases.

SlimPajama-DC (2309.10818) holds that removal across sources beats removal within each. Its largest
source, CommonCrawl, is made of dumps that hold many pages again: within a dump there is little to
remove, across dumps 63.8 % of the bytes were. The recipe ``slimpajama-dc/releases`` has series of
releases for dumps: eleven pages of Django's guides recur in all thirteen releases, the others are
read from the last one only. Both are one kind of text, told apart by their first letter, so that
the corpora differ in how often a page recurs and not in what is written on it.

Fixed before any run that is reported: recipe, steps, seeds, the split, what is measured and the
tolerance (two standard errors then; Student's t, which asks for more, now). All corpora hold out
the same pages, in every version; bits per byte are over all of their bytes, each page once. A pilot
of one other seed, judged on the validation split, came before the last two were written down; the
recipe was not changed after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from feldspar.corpus.document import Document
from feldspar.corpus.store import documents, sources
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.paper import Data, Figures
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.slimpajama_dc.bits_by_part import BitsByPart, grouped, matrix_section
from feldspar.papers.slimpajama_dc.common_held_out import SPLIT, bits_per_byte, common_held_out
from feldspar.papers.slimpajama_dc.repetition import Repetition, repetition_section, repetitions
from feldspar.recipe.load import load_recipe
from feldspar.report.figures import Figure, Series, line_figure
from feldspar.report.page import Section
from feldspar.study.trials import TrialResult

RECIPE = "slimpajama-dc/releases"
DUPLICATES = "choose.duplicates"
SCOPES = ("none", "local", "global")
RECURRING, ONCE = "recurring pages", "pages of one release"


@dataclass(frozen=True)
class ScopeFindings:
    """What the runs on the three corpora came to."""

    claims: list[Claim]
    sections: list[Section]
    figure: Figure


def data_of(scope: str) -> Data:
    """The shards of the releases with duplicates removed in ``scope``."""
    return Data(RECIPE, (f"{DUPLICATES}={scope}",))


def measure_scopes(runs: Sequence[TrialResult]) -> Figures:
    """Measure every run on the pages that all corpora hold out."""
    folders = {scope: documents_of(data_of(scope)) for scope in SCOPES}
    parts = parts_of(
        common_held_out(folders["global"], [folders["none"], folders["local"]]),
        recurring_groups(folders["none"]),
    )
    measured = bits_per_byte(
        [run.folder for run in runs],
        {part: [page.text for page in pages] for part, pages in parts.items()},
    )
    by_part = grouped(runs, DUPLICATES, measured)
    sizes = {part: sum(len(page.text.encode()) for page in pages) for part, pages in parts.items()}
    repeated = repetitions(folders, "global", runs[0].tokens)
    return {
        "duplicates": by_part,
        "duplicates_all": {scope: over_all_bytes(by_part[scope], sizes) for scope in SCOPES},
        "held_out": {
            part: {"pages": len(pages), "bytes": sizes[part]} for part, pages in parts.items()
        },
        "repetition": {scope: asdict(item) for scope, item in repeated.items()},
    }


def judge_scopes(figures: Figures, claims: StatedClaims) -> ScopeFindings:
    """Make the claims, tables and the drawing of the three corpora."""
    by_part, bits = figures["duplicates"], figures["duplicates_all"]
    repeated = {scope: Repetition(**own) for scope, own in figures["repetition"].items()}
    figure = readings_figure(by_part, bits, repeated)
    return ScopeFindings(
        [scope_claim(other, bits, repeated, claims) for other in ("local", "none")],
        [
            matrix_section("Duplicates", by_part, bits, "all", figure),
            repetition_section(repeated),
        ],
        figure,
    )


def documents_of(data: Data) -> Path:
    """Where the documents of ``data`` lie."""
    corpus = load_recipe(data.recipe, list(data.overrides)).recipe.corpus
    assert corpus is not None, "a shipped recipe"
    return corpus.path


def recurring_groups(folder: Path) -> set[str]:
    """The held-out pages that more than one source of ``folder`` has."""
    found: list[str] = []
    for source in sources(folder):
        found += {document.group for document in documents(folder, SPLIT, source)}
    return {group for group in found if found.count(group) > 1}


def parts_of(held_out: Sequence[Document], recurring: set[str]) -> dict[str, list[Document]]:
    """Held-out pages that recur, and the others; a part without pages is left out."""
    parts: dict[str, list[Document]] = {RECURRING: [], ONCE: []}
    for page in held_out:
        parts[RECURRING if page.group in recurring else ONCE].append(page)
    return {part: pages for part, pages in parts.items() if pages}


def over_all_bytes(by_part: Mapping[str, Sequence[float]], sizes: Mapping[str, int]) -> list[float]:
    """Bits per byte of every seed over all parts together."""
    total = sum(sizes.values())
    return [
        sum(bits * sizes[part] for part, bits in zip(by_part, values, strict=True)) / total
        for values in zip(*by_part.values(), strict=True)
    ]


def readings_figure(
    by_part: BitsByPart,
    bits: Mapping[str, Sequence[float]],
    repeated: Mapping[str, Repetition],
) -> Figure:
    """Held-out bits per byte over how often a run reads a recurring text, from global to none."""
    scopes = sorted(bits, key=lambda scope: repeated[scope].recurring)
    readings = [repeated[scope].recurring for scope in scopes]
    parts = [
        Series(part, readings, [fmean(by_part[scope][part]) for scope in scopes], "points")
        for part in by_part[scopes[0]]
    ]
    every = Series("all, mean", readings, [fmean(bits[scope]) for scope in scopes], "points")
    seeds = Series(
        "all, each seed",
        [repeated[scope].recurring for scope in scopes for _ in bits[scope]],
        [value for scope in scopes for value in bits[scope]],
        "markers",
    )
    return line_figure(
        f"Held-out bits per byte; duplicates removed: {', '.join(scopes)}",
        [*parts, every, seeds],
        "readings of a recurring text in one run",
        "bits per byte",
    )


def scope_claim(
    other: str,
    bits: Mapping[str, Sequence[float]],
    repeated: Mapping[str, Repetition],
    claims: StatedClaims,
) -> Claim:
    """Judge duplicates removed across sources against another corpus."""
    name = f"global-against-{other}"
    gain = Gain.of(bits["global"], bits[other])
    ours, theirs = repeated["global"], repeated[other]
    return claims.judged(
        name,
        f"held-out bits per byte: {fmean(bits['global']):.4f} against "
        f"{fmean(bits[other]):.4f}, {gain.lower_or_higher}; "
        f"{1 - ours.bytes / theirs.bytes:.1%} of its bytes are removed, and a recurring "
        f"text is read {ours.recurring:.1f} times instead of {theirs.recurring:.1f}",
        held=gain.exceeds(claims.limit(name, "noise")),
        with_copies=theirs.worn,
        without=ours.worn,
    )
