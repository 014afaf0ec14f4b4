"""How often a run reads the same text again, when its corpora differ in what was removed.

Texts count as the same when removal across sources joins them. A natural mixture passes over all
sources equally often, so that a text with ``c`` copies is read ``c`` times a pass.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from feldspar.corpus.columns import arrow
from feldspar.corpus.store import documents, sources
from feldspar.report.page import Section, Table

Place = tuple[str, str]
"""Source and origin of a document, which name it."""
GOOD_AS_NEW = 4
"""Readings up to which repeated text is almost as good as new text (arXiv 2305.16264)."""


@dataclass(frozen=True)
class Repetition:
    """What one corpus holds to train on, and how often a run reads it."""

    documents: int
    bytes: int
    """UTF-8."""
    passes: float
    """Of the run over the corpus."""
    recurring: float
    """Mean readings of a text that has copies where nothing is removed."""
    once: float
    """Mean readings of one that has none."""
    worn: float
    """Share of the run's bytes that are at least the fifth reading of their text."""


def repetitions(corpora: Mapping[str, Path], distinct: str, tokens: int) -> dict[str, Repetition]:
    """The repetition in runs of ``tokens`` bytes on each of ``corpora``, by name.

    ``distinct`` names the one whose duplicates were removed across sources.
    """
    survivor = survivors(corpora[distinct])
    copies = {name: _copies(folder, survivor) for name, folder in corpora.items()}
    most = max(copies.values(), key=lambda found: sum(count for count, _ in found.values()))
    recurring = {text for text, (count, _) in most.items() if count > 1}
    return {name: _repetition(found, recurring, tokens) for name, found in copies.items()}


def survivors(folder: Path) -> dict[Place, Place]:
    """The document that each dropped one gave way to."""
    _, parquet = arrow()
    names = ["source", "origin", "kept_source", "kept_origin"]
    table = parquet.read_table(folder / "duplicates.parquet", columns=names)
    source, origin, *kept = (table.column(name).to_pylist() for name in names)
    return dict(zip(zip(source, origin, strict=True), zip(*kept, strict=True), strict=True))


def _copies(folder: Path, survivor: Mapping[Place, Place]) -> dict[Place, tuple[int, int]]:
    """Copies in train, and their bytes together, of each distinct text."""
    counts: Counter[Place] = Counter()
    sizes: Counter[Place] = Counter()
    for source in sources(folder):
        for document in documents(folder, "train", source):
            place = document.source, document.origin
            text = survivor.get(place, place)
            counts[text] += 1
            sizes[text] += len(document.text.encode("utf-8"))
    return {text: (counts[text], sizes[text]) for text in counts}


def _repetition(
    copies: Mapping[Place, tuple[int, int]], recurring: set[Place], tokens: int
) -> Repetition:
    """Readings are weighted by the size of the text: bytes read by bytes of one copy."""
    size = sum(total for _, total in copies.values())
    passes = tokens / size

    def readings(texts: set[Place]) -> float:
        one_each = sum(copies[text][1] / copies[text][0] for text in texts)
        return passes * sum(copies[text][1] for text in texts) / one_each if texts else 0.0

    worn = sum(
        max(0.0, count * passes - GOOD_AS_NEW) * total / count for count, total in copies.values()
    )
    return Repetition(
        documents=sum(count for count, _ in copies.values()),
        bytes=size,
        passes=passes,
        recurring=readings(recurring & set(copies)),
        once=readings(set(copies) - recurring),
        worn=worn / tokens,
    )


def repetition_section(found: Mapping[str, Repetition]) -> Section:
    """What each corpus holds, and how often its text is read."""
    most = max(item.bytes for item in found.values())
    rows = [
        [
            name,
            f"{item.documents:,}",
            f"{item.bytes:,}",
            f"{1 - item.bytes / most:.1%}",
            f"{item.passes:.2f}",
            f"{item.recurring:.1f}",
            f"{item.once:.1f}",
            f"{item.worn:.0%}",
        ]
        for name, item in found.items()
    ]
    heads = [
        "duplicates removed",
        "documents",
        "bytes",
        "removed",
        "passes",
        "readings of a recurring text",
        "of any other",
        f"tokens past reading {GOOD_AS_NEW}",
    ]
    words = (
        "Text to train on, and how often a run of equal tokens reads it: in each pass as many "
        "times as the corpus holds copies."
    )
    return Section("What the corpora hold", [words], [Table(heads, rows)])
