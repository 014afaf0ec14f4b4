"""Lines of a stream of blocks, in bounded memory however long one of them is."""

from collections.abc import Iterable, Iterator

LONGEST_LINE_BYTES = 64 << 20
"""A longer line is no record: it is passed over without being held in memory."""


def bounded_lines(
    blocks: Iterable[bytes], longest: int = LONGEST_LINE_BYTES
) -> Iterator[bytes | None]:
    """Each line without its end; None in the place of one of more than ``longest`` bytes."""
    pieces: list[bytes] = []
    held = 0
    for block in blocks:
        first, *others = block.split(b"\n")
        for position, piece in enumerate((first, *others)):
            if position:
                yield _line(pieces, held, longest)
                pieces, held = [], 0
            held += len(piece)
            if held <= longest:
                pieces.append(piece)
            else:
                pieces = []
    if held:
        yield _line(pieces, held, longest)


def _line(pieces: list[bytes], held: int, longest: int) -> bytes | None:
    return b"".join(pieces) if held <= longest else None
