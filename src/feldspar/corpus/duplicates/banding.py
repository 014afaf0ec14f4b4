"""How sketches are cut into bands, by name.

Two documents of similarity J meet with probability 1 - (1 - J^rows)^bands.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Banding:
    """How many bands of how many values; ``verified``: whether pairs are then checked exactly."""

    bands: int
    rows: int
    verified: bool


PRESETS = {
    "verified": Banding(bands=20, rows=6, verified=True),
    "slimpajama": Banding(bands=9, rows=13, verified=False),
}
