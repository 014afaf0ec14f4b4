"""Files of one name in the folders of a stage's units."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload


def unit_folder(stage: Path, number: int) -> Path:
    """The folder of one unit."""
    return stage / f"{number:06d}"


@dataclass(frozen=True)
class UnitFiles(Sequence[Path]):
    """The file ``name`` of each of ``units`` units, in order.

    Units that read all of them carry this along. As paths those of a terabyte of text would take
    6 MB and two seconds of pickling with each unit.
    """

    stage: Path
    name: str
    units: int

    def __len__(self) -> int:
        return self.units

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Path, ...]: ...
    def __getitem__(self, index: int | slice) -> Path | tuple[Path, ...]:
        numbers = range(self.units)[index]
        if isinstance(numbers, range):
            return tuple(unit_folder(self.stage, number) / self.name for number in numbers)
        return unit_folder(self.stage, numbers) / self.name
