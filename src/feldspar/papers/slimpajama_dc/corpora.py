"""Corpora of the same sources that differ in the duplicates removed: held-out text, repetition.

A corpus of several releases holds versions of a document that are no near copies of each other:
the documents that one corpus holds out are a fair measure only where no corpus trains on any
version of them. Texts count as the same when removal across sources joins them. A natural mixture
passes over all sources equally often, so that a text with ``c`` copies is read ``c`` times a pass.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.core.progress import progress
from feldspar.corpus.columns import arrow
from feldspar.corpus.document import Document
from feldspar.corpus.store import documents, sources
from feldspar.evaluate.loss.documents import text_losses
from feldspar.evaluate.loss.text_loss import total_loss
from feldspar.report.page import Section, Table
from feldspar.train.load import load_run, text_model_of

SPLIT = "test"
"""Training measures itself on validation, never on this."""
Place = tuple[str, str]
"""Source and origin of a document, which name it."""
GOOD_AS_NEW = 4
"""Readings up to which repeated text is almost as good as new text (arXiv 2305.16264)."""


def common_held_out(reference: Path, others: Sequence[Path]) -> list[Document]:
    """Return a document of each group of ``reference``'s test split that no corpus has in train.

    Groups are compared by name across sources. That no near copy under another name is in train is
    what ``split.decontamination: near`` sees to when the corpora are built. Raises UserError where
    nothing is left.
    """
    trained = {
        document.group
        for folder in (reference, *others)
        for source in sources(folder)
        for document in documents(folder, "train", source)
    }
    held_out: dict[str, Document] = {}
    for source in sources(reference):
        for document in documents(reference, SPLIT, source):
            if document.group not in trained:
                held_out.setdefault(document.group, document)
    if not held_out:
        raise UserError(f"every document that {reference} holds out has a version in train")
    return list(held_out.values())


def bits_per_byte(
    runs: Iterable[Path], held_out: Mapping[str, Sequence[str]]
) -> list[dict[str, float]]:
    """Return the bits per byte of each run on each of the named texts."""
    found = []
    todo = list(runs)
    with progress("held-out documents", len(todo), "models") as advance:
        for folder in todo:
            model = text_model_of(load_run(folder))
            found.append(
                {
                    name: total_loss(text_losses(model, texts)).bits_per_byte
                    for name, texts in held_out.items()
                }
            )
            advance(1)
    return found


@dataclass(frozen=True)
class Repetition:
    """The training text of one corpus, and the number of times that a run reads it."""

    documents: int
    bytes: int
    """The size in UTF-8."""
    passes: float
    """The passes of the run over the corpus."""
    recurring: float
    """Mean readings of a text that has copies where nothing is removed."""
    once: float
    """Mean readings of one that has none."""
    worn: float
    """Share of the run's bytes that are at least the fifth reading of their text."""


def repetitions(corpora: Mapping[str, Path], distinct: str, tokens: int) -> dict[str, Repetition]:
    """Return the repetition in runs of ``tokens`` bytes on each of ``corpora``, by name.

    ``distinct`` names the one whose duplicates were removed across sources.
    """
    survivor = survivors(corpora[distinct])
    copies = {name: _copies(folder, survivor) for name, folder in corpora.items()}
    most = max(copies.values(), key=lambda found: sum(count for count, _ in found.values()))
    recurring = {text for text, (count, _) in most.items() if count > 1}
    return {name: _repetition(found, recurring, tokens) for name, found in copies.items()}


def survivors(folder: Path) -> dict[Place, Place]:
    """Return the document that each dropped one gave way to."""
    _, parquet = arrow()
    names = ["source", "origin", "kept_source", "kept_origin"]
    table = parquet.read_table(folder / "duplicates.parquet", columns=names)
    source, origin, *kept = (table.column(name).to_pylist() for name in names)
    return dict(zip(zip(source, origin, strict=True), zip(*kept, strict=True), strict=True))


def _copies(folder: Path, survivor: Mapping[Place, Place]) -> dict[Place, tuple[int, int]]:
    """Return the copies in train of each distinct text, and their bytes together."""
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
    """Return the section on the text of each corpus and its readings."""
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
