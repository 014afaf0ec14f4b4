"""What each phase reads of each source: shares, passes, and how much of it is read again."""

from collections.abc import Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.plan.timeline import Timeline
from feldspar.recipe.amounts import Unit
from feldspar.recipe.root import Recipe
from feldspar.tokens.resolve import (
    MixtureContext,
    ResolvedMixture,
    UnknownTokens,
    resolve_mixture,
)

MANY_EPOCHS = 4
"""Up to here repeated tokens are worth about as much as new ones (2305.16264)."""


def resolve_mixtures(
    recipe: Recipe,
    timeline: Timeline,
    tokens: Mapping[str, int | None],
    allow_repeat: bool = False,
) -> list[ResolvedMixture]:
    """Each phase's mixture, with passes counted over the phases before it.

    Raises UserError for what recipes may not ask for, such as a source read again in silence
    (unless ``allow_repeat``), UnknownTokens where the size of a source is needed and not known.
    """
    resolved = []
    passes: dict[str, float] = {}
    for phase, settings in zip(timeline.phases, recipe.phases, strict=True):
        mixture = resolve_mixture(
            settings.mixture,
            MixtureContext(
                tokens=tokens,
                length_tokens=phase.tokens,
                context_length=phase.context_length,
                allow_repeat=allow_repeat or settings.allow_repeat,
                normalize=settings.normalize_mixture,
                length_in_epochs=settings.length.unit is Unit.EPOCHS,
                epochs_before=dict(passes),
                where=f"phases.{phase.index}.mixture",
            ),
        )
        resolved.append(mixture)
        for name, epochs in mixture.epochs.items():
            passes[name] = passes.get(name, 0.0) + (epochs or 0.0)
    return resolved


def data_record(
    recipe: Recipe, timeline: Timeline, tokens: Mapping[str, int | None]
) -> dict[str, Any]:
    """Each source's own tokens, what the run reads of it and in how many passes, as plain values.

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
                    "probability": float(share),
                    "tokens": round(share * phase.tokens),
                    "epochs": mixture.epochs[name],
                }
                for name, share in mixture.probabilities.items()
            },
        }
        for phase, mixture in zip(timeline.phases, mixtures, strict=True)
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
    """Sources that are read many times, and what training would refuse."""
    found = [
        f"data: {name} is read {source['epochs']:.3g} times; beyond {MANY_EPOCHS} passes repeated "
        "tokens are worth less and less (2305.16264)"
        for name, source in (record["sources"] or {}).items()
        if source["epochs"] is not None and source["epochs"] > MANY_EPOCHS
    ]
    if record["unknown"] is None:
        try:
            resolve_mixtures(recipe, timeline, tokens)
        except UserError as error:
            found.append(f"training will refuse this: {error.what}; {error.do}")
    return found


def _unknown(why: str) -> dict[str, Any]:
    return {"unique_tokens": None, "sources": None, "phases": None, "unknown": why}


def _source(name: str, size: int | None, phases: list[dict[str, Any]]) -> dict[str, Any]:
    parts = [phase["sources"][name] for phase in phases if name in phase["sources"]]
    read = sum(part["tokens"] for part in parts)
    return {
        "tokens": size,
        "read_tokens": read,
        "unique_tokens": None if size is None else min(read, size),
        "epochs": None if size is None else sum(part["epochs"] for part in parts),
    }
