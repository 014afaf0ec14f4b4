"""How long documents are, before and after."""

import numpy as np

from feldspar.corpus.outcome import Outcome


def length_counts(outcome: Outcome) -> dict[str, dict[str, dict[str, int]]]:
    """Documents read and kept of each source by length.

    A length is given by the largest power of two not above the UTF-8 bytes of the text, in bytes;
    empty texts by 0.
    """
    sizes = outcome.features.sizes
    # frexp is exact, unlike a logarithm: size = m * 2^e with 1/2 <= m < 1.
    floors = np.where(sizes > 0, 1 << np.maximum(np.frexp(sizes.astype(float))[1] - 1, 0), 0)
    counts = {}
    for number, name in enumerate(outcome.names):
        own = outcome.sources == number
        counts[name] = {
            "read": _histogram(floors[own]),
            "kept": _histogram(floors[own & outcome.kept]),
        }
    return counts


def _histogram(floors: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(floors, return_counts=True)
    return {
        str(value): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    }
