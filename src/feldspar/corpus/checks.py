"""Check what was read before its duplicates are sought: each source, the settings, the memory."""

from collections.abc import Iterable, Sequence

import numpy as np

from feldspar.core.errors import UserError, nearest
from feldspar.corpus.features import Features
from feldspar.corpus.filtering import all_reasons, reasons_of
from feldspar.corpus.parts import PartFiles
from feldspar.recipe.sections.corpus import DeduplicateSettings, Filter, HighestValue

RESIDENT_BYTES = 300
"""Integers of one document that are held in memory at most."""
UNIT_BYTES = 48_000_000
"""Bytes that a unit of work holds beside them: parts of text, their cleaned form, columns."""
MOST_REPLACED = 1000
"""At most one in so many characters of a source may be replaced."""


def replaced_characters(
    names: Sequence[str], features: Features, files: PartFiles
) -> dict[str, int]:
    """Count the characters of each source that were replaced; leave out sources without any.

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


def check_memory(settings: DeduplicateSettings, documents: int) -> None:
    """Raise UserError where the memory allowed cannot hold the integers of so many documents."""
    needed = documents * RESIDENT_BYTES + UNIT_BYTES
    if needed > settings.memory_bytes:
        raise UserError(
            f"deduplicate.memory: {settings.memory} is too small for {documents:,} documents",
            allowed=f"at least {-(-needed // 10**6)}MB",
            do="give more (--memory, deduplicate.memory); with deduplicate: null, where pairs are "
            "sought for the split only, split.decontamination: exact needs none",
        )


def check_sources(
    names: Sequence[str], features: Features, filters: Sequence[Filter], each: bool
) -> None:
    """Check that the filters keep a document of ``each`` source, or of all of them together."""
    groups = [[number] for number in range(len(names))] if each else [list(range(len(names)))]
    for group in groups:
        reasons = features.reasons[np.isin(features.sources, group)]
        if not (reasons < 0).any():
            title = "source" if len(group) == 1 else "sources"
            raise UserError(
                f"{title} {', '.join(names[number] for number in group)} "
                f"{'has' if len(group) == 1 else 'have'} no document left after cleaning: of "
                f"{len(reasons)} read, {_removals(reasons, reasons_of(filters)) or 'none is left'}",
                found=", ".join(str(each.model_dump(mode="json")) for each in filters),
                do="correct the source, or relax the filter: clean.short (corpus dedup: --short) "
                "or corpus.filters",
            )


def _removals(places: np.ndarray, reasons: Sequence[str]) -> str:
    """Tell how many documents the filters remove, by reason."""
    phrases = all_reasons()
    counts = {reason: int((places == place).sum()) for place, reason in enumerate(reasons)}
    return ", ".join(f"{count} {phrases[reason]}" for reason, count in counts.items() if count)


def check_priority(names: list[str], priority: Iterable[str]) -> None:
    """Raise UserError where ``priority`` names an unknown source."""
    for name in priority:
        if name not in names:
            hint = nearest(name, names)
            raise UserError(
                f"priority: there is no source {name!r}"
                + (f"; did you mean {hint!r}?" if hint else ""),
                allowed=names,
            )


def check_quality(settings: DeduplicateSettings, features: Features) -> None:
    """Raise UserError where no document has the field that chooses survivors."""
    field = quality_field(settings)
    if field is not None and np.isnan(features.quality).all():
        raise UserError(
            f"keep: no document has the field {field!r}",
            do="name a field that holds numbers, or choose another way to keep",
        )


def quality_field(settings: DeduplicateSettings | None) -> str | None:
    """Return the field of records that chooses survivors; None where no field does."""
    keep = settings.keep if settings is not None else None
    return keep.field if isinstance(keep, HighestValue) else None
