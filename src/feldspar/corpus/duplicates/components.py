"""Connected components by union-find; each is labelled by its smallest member."""

import numpy as np


def component_labels(size: int, edges: np.ndarray) -> np.ndarray:
    """For each of ``size`` keys the smallest key that ``edges`` (n, 2) connect it with.

    Union by the smaller key with path halving: the result does not depend on the edges' order.
    """
    parents = list(range(size))

    def root(key: int) -> int:
        while parents[key] != key:
            parents[key] = parents[parents[key]]
            key = parents[key]
        return key

    for first, second in edges.tolist():
        low, high = sorted((root(first), root(second)))
        parents[high] = low
    return np.fromiter((root(key) for key in range(size)), dtype=np.int64, count=size)
