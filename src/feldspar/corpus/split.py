"""Choose the split of each document by the hash of its group, so that versions stay together.

A group is a (source, group name) pair; groups that a cluster of duplicates connects count as one.
Each falls into one of 1000 buckets by a SHA-256 of its name, whatever the order of files; into one
of 100,000 where a share is no whole number of thousandths. Where no group of a source falls into a
held-out split, the group of the next bucket moves there.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from feldspar.corpus.duplicates.components import component_labels
from feldspar.recipe.sections.corpus import SplitSettings

SPLITS = ("train", "validation", "test")


def bucket(source: str, group: str, buckets: int) -> int:
    """Return the bucket, 0 to ``buckets`` - 1, of one group."""
    name = f"{source}\0{group}".encode("utf-8", "surrogatepass")
    return int(hashlib.sha256(name).hexdigest()[:8], 16) % buckets


def side(number: int, settings: SplitSettings) -> str:
    """Return the split of a bucket: the lowest are test, the next validation, the rest train."""
    test = round(settings.test * settings.buckets)
    if number < test:
        return "test"
    validation = round(settings.validation * settings.buckets)
    return "validation" if number < test + validation else "train"


def assign(
    sources: Sequence[str],
    groups: Sequence[str],
    clusters: np.ndarray,
    kept: np.ndarray,
    settings: SplitSettings,
) -> list[str]:
    """Choose the split of each document; ``clusters`` labels each with a document of its cluster.

    Connected groups go where the alphabetically first of them goes, but for those of sources that
    are held out whole, and those that a source needs to have ``kept`` documents on each side: see
    ``_hold_out``.
    """
    names = sorted(set(zip(sources, groups, strict=True)))
    numbers = {name: number for number, name in enumerate(names)}
    of_document = np.array(
        [numbers[name] for name in zip(sources, groups, strict=True)], dtype=np.int64
    )
    links = np.stack([of_document, of_document[clusters]], axis=1)
    labels = component_labels(len(names), links[links[:, 0] != links[:, 1]])
    buckets = {
        label: bucket(*names[label], buckets=settings.buckets)
        for label in np.unique(labels).tolist()
    }
    sides = {label: side(number, settings) for label, number in buckets.items()}
    whole = [n for n, (source, _) in enumerate(names) if source in settings.out_of_distribution]
    sides |= dict.fromkeys(labels[whole].tolist(), "test")
    held = labels[of_document]
    places = np.flatnonzero(kept).tolist()
    counts = Counter((sources[place], int(held[place])) for place in places)
    _hold_out(counts, buckets, sides, settings)
    return [sides[label] for label in held.tolist()]


def _hold_out(
    counts: Counter[tuple[str, int]],
    buckets: dict[int, int],
    sides: dict[int, str],
    settings: SplitSettings,
) -> None:
    """Give each source text on each side that has a share, where it has groups enough.

    ``counts`` holds the kept documents by source and group. Of the groups in train the one of the
    lowest bucket moves; not the last one, and none with more than half of the documents of a
    source, which training would miss. So a source of two equal groups has no validation text.
    """
    own: dict[str, dict[int, int]] = {}
    for (source, label), count in sorted(counts.items()):
        own.setdefault(source, {})[label] = count
    large = {
        label
        for documents in own.values()
        for label, count in documents.items()
        if 2 * count > sum(documents.values())
    }
    for split, share in (("test", settings.test), ("validation", settings.validation)):
        for labels in own.values() if share else ():
            train = [label for label in labels if sides[label] == "train"]
            if len(train) < 2 or any(sides[label] == split for label in labels):
                continue
            small = [label for label in train if label not in large]
            if small:
                sides[min(small, key=lambda label: (buckets[label], label))] = split
