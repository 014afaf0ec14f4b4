"""Part of a source: every second shard file, or a range of its documents."""

from dataclasses import replace

import numpy as np

from feldspar.core.errors import UserError
from feldspar.recipe.sections.phase_data import Select
from feldspar.tokens.sequences.mixture import exact
from feldspar.tokens.shards.shard_folder import SourceTokens


def select_documents(source: SourceTokens, select: Select | None, name: str) -> SourceTokens:
    """Return the documents of ``source`` that ``select`` chooses, in order; None chooses all.

    ``even`` and ``odd`` share no document, and neither do ranges that only touch. Raises UserError
    if no document is left.
    """
    if select is None:
        return source
    documents = len(source.lengths)
    if select.range is not None:
        first, last = (int(exact(end) * documents) for end in select.range)
        kept = np.zeros(documents, bool)
        kept[first:last] = True
    else:
        kept = source.file_index % 2 == (select.files == "odd")
    if not kept.any():
        raise UserError(
            f"{select.label(name)} is empty: source {name!r} has {documents:,} documents in "
            f"{len(source.files)} shard files",
            do="select another part, or build the shards with a smaller shards.shard_tokens",
        )
    return replace(
        source,
        file_index=source.file_index[kept],
        starts=source.starts[kept],
        lengths=source.lengths[kept],
    )
