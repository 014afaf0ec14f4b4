"""The side of each document: group first, then hash, so that versions stay on one side.

A group is a (source, group name) pair; groups that a cluster of duplicates connects count as one.
Each falls into one of 1000 buckets by a SHA-256 of its name: the side depends neither on the order
of files nor on the other documents.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from feldspar.corpus.duplicates.components import component_labels
from feldspar.corpus.settings import SplitSettings

SPLITS = ("train", "validation", "test")
BUCKETS = 1000


def bucket(source: str, group: str) -> int:
    """The bucket, 0 to 999, of one group."""
    name = f"{source}\0{group}".encode("utf-8", "surrogatepass")
    return int(hashlib.sha256(name).hexdigest()[:8], 16) % BUCKETS


def side(number: int, settings: SplitSettings) -> str:
    """The split of a bucket: the lowest are test, the next validation, the rest train."""
    test = round(settings.test * BUCKETS)
    if number < test:
        return "test"
    return "validation" if number < test + round(settings.validation * BUCKETS) else "train"


def assign(
    sources: Sequence[str],
    groups: Sequence[str],
    clusters: np.ndarray,
    settings: SplitSettings,
) -> list[str]:
    """The split of each document; ``clusters`` labels each with a document of its cluster.

    Connected groups go where the alphabetically first of them goes.
    """
    names = sorted(set(zip(sources, groups, strict=True)))
    numbers = {name: number for number, name in enumerate(names)}
    of_document = np.array(
        [numbers[name] for name in zip(sources, groups, strict=True)], dtype=np.int64
    )
    links = np.stack([of_document, of_document[clusters]], axis=1)
    labels = component_labels(len(names), links[links[:, 0] != links[:, 1]])
    sides = [side(bucket(*names[label]), settings) for label in labels.tolist()]
    return [sides[number] for number in of_document.tolist()]
