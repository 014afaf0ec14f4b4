"""How much of each source was not UTF-8: an error where it is more than damage here and there."""

from collections.abc import Sequence

import numpy as np

from feldspar.core.errors import UserError
from feldspar.corpus.features import Features
from feldspar.corpus.parts import PartFiles

MOST_REPLACED = 1000
"""At most one in so many characters of a source may be replaced."""


def replaced_characters(
    names: Sequence[str], features: Features, files: PartFiles
) -> dict[str, int]:
    """How many characters of each source were replaced; sources without any are left out.

    Raises UserError for a source in which they are more than one in ``MOST_REPLACED`` of all
    characters of its texts as they were read.
    """
    counts = {}
    for rank, name in enumerate(names):
        keys = np.flatnonzero(features.sources == rank)
        replaced = int(features.replaced[keys].sum())
        characters = int(features.read_characters[keys].sum())
        if replaced * MOST_REPLACED > characters:
            damaged = keys[np.flatnonzero(features.replaced[keys])]
            (first,) = files.strings("origin", damaged[:1])
            raise UserError(
                f"source {name}: {replaced:,} of {characters:,} characters "
                f"({replaced / characters:.2%}) are not UTF-8, in {len(damaged):,} documents; "
                f"the first is {first}",
                allowed=f"at most 1 in {MOST_REPLACED:,}, which are replaced by U+FFFD",
                do="convert the source to UTF-8, for example with iconv -f CP1252 -t UTF-8",
            )
        if replaced:
            counts[name] = replaced
    return counts
