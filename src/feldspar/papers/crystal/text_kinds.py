"""Language and code: the two kinds of text that Crystal balances, by the sources of its recipes."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from feldspar.papers.kit.validation_curve import Validation, ends_of_phases

CODE = frozenset(
    ("django-code", "py-stdlib", "github", "starcoder", "python", "html", "javascript", "css")
)
"""Sources of code in the recipes crystal/small and crystal/paper; all others are language."""
LANGUAGE_KIND, CODE_KIND = "language", "code"

Bits = dict[str, dict[str, list[float]]]
"""Bits per byte of each seed, by phase and kind."""


def by_kind(bits: Mapping[str, float]) -> dict[str, float]:
    """The mean over the sources of each kind, each source counted alike."""
    kinds = {name: CODE_KIND if name in CODE else LANGUAGE_KIND for name in bits}
    return {
        kind: fmean(bits[name] for name in bits if kinds[name] == kind)
        for kind in (LANGUAGE_KIND, CODE_KIND)
        if kind in kinds.values()
    }


def bits_by_phase(curves: Sequence[Sequence[Validation]]) -> Bits:
    """Where each phase ends; one curve a seed."""
    found: Bits = {}
    for curve in curves:
        for phase, end in ends_of_phases(curve).items():
            for kind, value in by_kind(end.bits_per_byte).items():
                found.setdefault(phase, {}).setdefault(kind, []).append(value)
    return found
