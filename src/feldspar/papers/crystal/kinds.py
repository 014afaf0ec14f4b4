"""Bits per byte of the two kinds of text, language and code, read from the records of runs."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from feldspar.papers.kit.validation_curve import Validation, ends_of_phases
from feldspar.report.page import Table

CODE = frozenset(
    (
        *("django-code", "package-code", "py-stdlib"),
        *("github", "starcoder", "python", "html", "javascript", "css"),
    )
)
"""Sources of code in the recipes of this folder; all others are language."""
LANGUAGE_KIND, CODE_KIND, BOTH_KINDS = "language", "code", "mean"
KINDS = (LANGUAGE_KIND, CODE_KIND)

KindBits = dict[str, list[float]]
"""Bits per byte of each seed by kind, and their mean over both kinds."""


def by_kind(bits: Mapping[str, float]) -> dict[str, float]:
    """Return the mean over the sources of each kind, each source counted alike, and the mean over
    both kinds."""
    found = {
        LANGUAGE_KIND: fmean(value for name, value in bits.items() if name not in CODE),
        CODE_KIND: fmean(value for name, value in bits.items() if name in CODE),
    }
    return found | {BOTH_KINDS: fmean(found.values())}


def bits_of_runs(validations: Sequence[Validation]) -> KindBits:
    """Return the bits per byte of one validation of each seed, by kind."""
    kinds = [by_kind(each.bits_per_byte) for each in validations]
    return {kind: [own[kind] for own in kinds] for kind in (*KINDS, BOTH_KINDS)}


def bits_by_phase(curves: Sequence[Sequence[Validation]]) -> dict[str, KindBits]:
    """Return the bits per byte at the end of each phase, by phase; one curve a seed."""
    ends = [ends_of_phases(curve) for curve in curves]
    return {phase: bits_of_runs([end[phase] for end in ends]) for phase in ends[0]}


def bits_along(curves: Sequence[Sequence[Validation]]) -> list[KindBits]:
    """Return the bits per byte of each validation in order; one curve a seed."""
    return [bits_of_runs(together) for together in zip(*curves, strict=True)]


def kind_table(head: str, ends: Mapping[str, KindBits]) -> Table:
    """Return a row for each arm: the mean bits per byte of both kinds and their mean."""
    kinds = (*KINDS, BOTH_KINDS)
    rows = [[arm, *(f"{fmean(own[kind]):.4f}" for kind in kinds)] for arm, own in ends.items()]
    return Table([head, *kinds], rows)
