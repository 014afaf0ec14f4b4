"""The data that each phase reads of each source: shares, passes and repetitions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feldspar.core.errors import UserError
from feldspar.plan.timeline import PhasePlan, Timeline
from feldspar.recipe.amounts import Unit
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.phase_data import Select
from feldspar.tokens.sequences.resolve import (
    MixtureContext,
    ResolvedMixture,
    UnknownTokens,
    begin_tokens_of,
    resolve_mixture,
    tokens_of,
)

MANY_EPOCHS = 4
"""Up to so many passes, repeated tokens are worth about as much as new ones (2305.16264)."""


def resolve_mixtures(
    recipe: Recipe,
    timeline: Timeline,
    tokens: Mapping[str, int | None],
    allow_repeat: bool = False,
) -> list[ResolvedMixture]:
    """Return each phase's mixture, with passes counted over the phases before it.

    Raises UserError for a mixture that recipes may not ask for, such as a source that is read again
    (unless ``allow_repeat``). Raises UnknownTokens where the size of a source is needed and
    unknown.
    """
    resolved = []
    read: list[Passes] = []
    for phase, settings in zip(timeline.phases, recipe.phases, strict=True):
        if settings.examples is not None:
            resolved.append(ResolvedMixture({}, {}))
            continue
        chosen, infilled = settings.selections, settings.infilled_documents
        mixture = resolve_mixture(
            settings.mixture,
            MixtureContext(
                tokens=dict(tokens)
                | {
                    name: tokens_of(tokens, name, chosen.get(name), infilled.get(name))
                    for name in {**chosen, **infilled}
                    if name in tokens
                },
                length_tokens=text_tokens(phase, tokens),
                context_length=phase.context_length - begin_tokens_of(tokens),
                allow_repeat=allow_repeat or settings.allow_repeat,
                normalize=settings.normalize_mixture,
                length_in_epochs=settings.length.unit is Unit.EPOCHS,
                epochs_before={name: _passes(read, name, chosen.get(name)) for name in tokens},
                where=f"phases.{phase.index}.mixture",
            ),
        )
        resolved.append(mixture)
        read += [
            Passes(name, chosen.get(name), epochs or 0.0) for name, epochs in mixture.epochs.items()
        ]
    return resolved


def text_tokens(phase: PhasePlan, tokens: Mapping[str, int | None]) -> int:
    """Return the tokens that a phase reads from sources: all but the beginnings of sequences."""
    return phase.length - phase.sequences * begin_tokens_of(tokens)


@dataclass(frozen=True)
class Passes:
    """The amount that a phase read of a source, or of a part of it."""

    source: str
    select: Select | None
    epochs: float


def _passes(read: list[Passes], source: str, select: Select | None) -> float:
    """Return an upper bound on how often a document of the part was read.

    Another part of the same source has an order of its own. The documents that it read may come
    again, so it counts as a pass.
    """
    passes = 0.0
    for item in read:
        if item.source != source or not item.epochs:
            continue
        if item.select == select:
            passes += item.epochs
        elif item.select is None or select is None or select.overlaps(item.select):
            passes += max(item.epochs, 1.0)
    return passes


def data_record(
    recipe: Recipe, timeline: Timeline, tokens: Mapping[str, int | None]
) -> dict[str, Any]:
    """Return each source's tokens, and the tokens and passes that the run reads, as plain values.

    ``unknown`` says why there are no figures. Raises UserError for a mixture that fits no data.
    """
    if not tokens:
        return _unknown("the recipe names no sources, and there are no shards yet")
    try:
        mixtures = resolve_mixtures(recipe, timeline, tokens, allow_repeat=True)
    except UnknownTokens as error:
        return _unknown(error.what)
    phases = [
        {
            "name": phase.name,
            "sources": {
                name: {
                    "part": select.label(name) if (select := chosen.get(name)) else None,
                    "part_tokens": tokens_of(tokens, name, select),
                    "probability": float(share),
                    "tokens": round(share * text_tokens(phase, tokens)),
                    "epochs": mixture.epochs[name],
                }
                for name, share in mixture.probabilities.items()
            },
        }
        for phase, mixture, chosen in zip(
            timeline.phases, mixtures, (p.selections for p in recipe.phases), strict=True
        )
    ]
    sources = {name: _source(name, size, phases) for name, size in tokens.items()}
    sources = {name: source for name, source in sources.items() if source["read_tokens"]}
    unique = [source["unique_tokens"] for source in sources.values()]
    return {
        "unique_tokens": None if None in unique else sum(unique),
        "sources": sources,
        "phases": phases,
        "unknown": None,
    }


def data_warnings(
    recipe: Recipe, timeline: Timeline, tokens: Mapping[str, int | None], record: Mapping[str, Any]
) -> list[str]:
    """Warn of sources that are read many times, and of mixtures that training refuses."""
    found = [
        f"data: {name} is read {passes:.3g} times; beyond {MANY_EPOCHS} passes repeated tokens are "
        "worth less and less (2305.16264)"
        for name, passes in _most_passes(record).items()
        if passes > MANY_EPOCHS
    ]
    if record["unknown"] is None:
        try:
            resolve_mixtures(recipe, timeline, tokens)
        except UserError as error:
            found.append(f"training will refuse this: {error.what}; {error.do}")
    return found


def _unknown(why: str) -> dict[str, Any]:
    return {"unique_tokens": None, "sources": None, "phases": None, "unknown": why}


def _most_passes(record: Mapping[str, Any]) -> dict[str, float]:
    """Return passes over each source by the run, or over a part by one phase if that is more."""
    most = {name: source["epochs"] or 0.0 for name, source in (record["sources"] or {}).items()}
    for phase in record["phases"] or []:
        for name, entry in phase["sources"].items():
            most[name] = max(most[name], entry["epochs"] or 0.0)
    return most


def _source(name: str, size: int | None, phases: list[dict[str, Any]]) -> dict[str, Any]:
    entries = [phase["sources"][name] for phase in phases if name in phase["sources"]]
    read = sum(entry["tokens"] for entry in entries)
    if size is None:
        return {"tokens": None, "read_tokens": read, "unique_tokens": None, "epochs": None}
    parts: dict[str | None, tuple[int, int]] = {}
    for entry in entries:
        before, _ = parts.get(entry["part"], (0, 0))
        parts[entry["part"]] = (before + entry["tokens"], entry["part_tokens"])
    # Parts may overlap, so this is an upper bound on the new tokens.
    unique = sum(min(tokens, part_tokens) for tokens, part_tokens in parts.values())
    return {
        "tokens": size,
        "read_tokens": read,
        "unique_tokens": min(unique, size),
        "epochs": sum(entry["epochs"] * entry["part_tokens"] / size for entry in entries),
    }
