"""Connected components by union-find over integers; each is labelled by its smallest member."""

import numpy as np


class Components:
    """Union by the smaller key with path halving: the result does not depend on the edges' order.

    Eight bytes a key; edges come in batches and are not kept.
    """

    def __init__(self, size: int) -> None:
        self._parents = np.arange(size, dtype=np.int64)

    def add(self, edges: np.ndarray) -> None:
        """Join the ends of each edge (n, 2)."""
        first, second = edges[:, 0], edges[:, 1]
        while len(first):
            first, second = self._roots(first), self._roots(second)
            apart = first != second
            first, second = first[apart], second[apart]
            # of several smaller roots that a root meets the smallest wins; the others meet again
            np.minimum.at(self._parents, np.maximum(first, second), np.minimum(first, second))

    def labels(self) -> np.ndarray:
        """Return for each key the smallest key that it is connected with."""
        return self._roots(np.arange(len(self._parents), dtype=np.int64))

    def _roots(self, keys: np.ndarray) -> np.ndarray:
        while True:
            up = self._parents[keys]
            if np.array_equal(up, keys):
                return keys
            self._parents[keys] = self._parents[up]
            keys = up


def component_labels(size: int, edges: np.ndarray) -> np.ndarray:
    """Return for each of ``size`` keys the smallest key that ``edges`` (n, 2) connect it with."""
    components = Components(size)
    components.add(edges)
    return components.labels()
