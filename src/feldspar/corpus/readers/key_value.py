"""Generate documents of pairs that come again, so that a model has to look back for their values.

A pair is a key of one letter or mark and a value of one digit: ``q7M3(1q7``. A document has keys of
its own, each with one value, which only the places of that key tell. Documents of few keys are
easy: a model learns to look back on them first.
"""

import string
from collections.abc import Iterator
from functools import partial

import numpy as np

from feldspar.core.streams import numpy_stream
from feldspar.corpus.document import Document, Documents, Tolerance
from feldspar.corpus.readers.pieces import Piece
from feldspar.recipe.sections.corpus import SourceSettings
from feldspar.recipe.sections.readers import KeyValueReader

KEYS = string.ascii_letters + string.punctuation
VALUES = string.digits
PAIR_BYTES = 2
FEWEST_KEYS = 2


def key_value_pieces(source: str, settings: SourceSettings) -> Iterator[Piece]:
    """Yield one piece, which holds all documents."""
    reader = settings.reader
    assert isinstance(reader, KeyValueReader)
    read = partial(key_value_documents, source, reader, settings.licence)
    yield Piece(read, reader.documents * reader.pairs * PAIR_BYTES, "")


def key_value_documents(
    source: str, reader: KeyValueReader, licence: str | None, tolerance: Tolerance
) -> Documents:
    """Yield the documents of a source, each drawn from a stream of its own."""
    for number in range(reader.documents):
        rng = numpy_stream(reader.seed, "corpus.key_value", number)
        name = f"{number:06}"
        n_keys = FEWEST_KEYS + int((len(KEYS) - FEWEST_KEYS + 1) * rng.random() ** 2)
        text = "".join(pairs_of(reader.pairs, n_keys, rng))
        yield Document(f"{source}/{name}", source, text, name, name, licence)


def pairs_of(count: int, n_keys: int, rng: np.random.Generator) -> list[str]:
    """Return ``count`` pairs of ``n_keys`` keys, each of which comes again at many distances.

    The number of other keys that were seen since a pair's last place is the square of a uniform
    number as a share of all keys, so that near repetitions are frequent and far ones are not rare.
    """
    keys = [KEYS[place] for place in rng.permutation(len(KEYS))[:n_keys]]  # the latest at the end
    values = {key: VALUES[rng.integers(len(VALUES))] for key in keys}
    found = []
    for _ in range(count):
        key = keys.pop(-1 - int(len(keys) * rng.random() ** 2))
        keys.append(key)
        found.append(key + values[key])
    return found
