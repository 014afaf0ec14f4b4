"""The vector registers of a processor, and the sizes that products choose by them."""

from dataclasses import dataclass

GROUP = 4
"""Rows that are computed together, where blocks of the mask allow it."""


@dataclass(frozen=True)
class Registers:
    """The vector registers that products use, and their tile of tokens."""

    lanes: int
    """Float32 values of a register."""
    tile: int
    """Tokens of a tile."""
    sums: int = 16
    """Registers for sums: half of all, so that inputs and weights find room."""
    processor: str = ""
    """LLVM's name of the processor to compile for. Empty: this one."""

    @property
    def vectors(self) -> int:
        """Registers that hold a tile of one feature."""
        return self.tile // self.lanes
