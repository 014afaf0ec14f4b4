"""The validations along a run, source by source, read from the run's own records."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feldspar.runtime.run_folder import RunFolder

_BEGIN, _END = "validation/", "/bits_per_byte"


@dataclass(frozen=True)
class Validation:
    """One validation: after which step and tokens, in which phase, and bits per byte by source."""

    step: int
    tokens: int
    phase: str
    bits_per_byte: dict[str, float]


def validation_curve(run: Path) -> list[Validation]:
    """Read every validation of a run, in order."""
    found = []
    for record in RunFolder(run).steps():
        bits = {
            name.removeprefix(_BEGIN).removesuffix(_END): value
            for name, value in record.items()
            if name.startswith(_BEGIN) and name.endswith(_END) and name.count("/") == 2
        }
        if bits:
            found.append(Validation(record["step"], record["tokens"], record["phase"], bits))
    return found


def ends_of_phases(curve: Sequence[Validation]) -> dict[str, Validation]:
    """Return the last validation of each phase, phases in order."""
    return {each.phase: each for each in curve}
