"""Describe the data of a run: origin, licence, counts and what filters removed, by source."""

from typing import Any

from feldspar.core.errors import FeldsparError, UserError
from feldspar.core.manifest import Manifest, read_manifest
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.corpus import SourceSettings

UNKNOWN = "unknown"


def corpus_record(
    recipe: Recipe, trained_shards: str, order: dict[str, Any] | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the record of the data of a run, and the reasons why parts of it are missing.

    ``trained_shards`` is the digest of the shards that the run read; ``order`` its data order.
    """
    missing: list[str] = []
    shards = documents = None
    try:
        shards = _shards_of(recipe, trained_shards)
        documents = _documents_of(recipe, shards)
    except FeldsparError as error:
        missing.append(error.what)
    record: dict[str, Any] = {"shards": None, "tokenizer": None, "documents": None, "sources": {}}
    if shards is not None:
        record["shards"] = {
            "digest": shards.digest,
            "parents": shards.parents,
            "files": {name: vars(file) for name, file in sorted(shards.files.items())},
        }
        names = ("tokenizer_digest", "vocab_size", "end_of_document", "end_of_document_id", "dtype")
        record["tokenizer"] = {name: shards.counts[name] for name in names}
        for split, sources in shards.counts["splits"].items():
            for name, counts in sources.items():
                record["sources"].setdefault(name, {}).setdefault("tokens", {})[split] = counts
    if documents is not None and recipe.corpus is not None:
        record["documents"] = {
            "digest": documents.digest,
            "version": documents.version,
            "warnings": documents.warnings,
            "decontamination": documents.counts.get("decontamination"),
        }
        for name, counts in documents.counts["by_source"].items():
            settings = recipe.corpus.sources[name]
            record["sources"].setdefault(name, {}).update(_source(settings, counts))
    for name, source in record["sources"].items():
        source["phases"] = _uses(name, order)
    return record, missing


def licences_of(record: dict[str, Any]) -> dict[str, str]:
    """Return the licence of each source with documents."""
    sources = record["sources"].items()
    return {name: source.get("licence", UNKNOWN) for name, source in sources}


def _source(settings: SourceSettings, counts: dict[str, Any]) -> dict[str, Any]:
    plain = settings.model_dump(mode="json", exclude={"licence", "tokens"}, exclude_none=True)
    if settings.path is not None:
        plain["path"] = settings.path.name  # its folder says nothing to others
    return {
        "origin": plain,
        "licence": settings.licence or licence_text(counts["licences"]),
        "licences": counts["licences"],
        "documents": counts["documents"],
        "bytes": counts["bytes"],
        "removed": counts["removed"],
        "noted": counts["noted"],
        "splits": counts["splits"],
    }


def licence_text(licences: dict[str, Any]) -> str:
    """Return the licences of a source's documents as one text, most frequent first."""
    known = sorted(licences.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(name for name, _ in known) or UNKNOWN


def _uses(name: str, order: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the share and the passes of a source in each phase that reads it."""
    phases = [] if order is None else order["phases"]
    return [
        {
            "phase": phase["name"],
            "share": each["probability"],
            "epochs": each["epochs"],
            "select": each["select"],
        }
        for phase in phases
        for each in phase.get("sources", ())
        if each["source"] == name
    ]


def _shards_of(recipe: Recipe, trained: str) -> Manifest:
    if recipe.shards is None:
        raise UserError("the recipe names no shards")
    manifest = read_manifest(recipe.shards.path, "shards")
    if manifest.digest != trained:
        raise UserError(f"{recipe.shards.path} holds other shards than the run was trained on")
    return manifest


def _documents_of(recipe: Recipe, shards: Manifest) -> Manifest:
    if recipe.corpus is None:
        raise UserError("the recipe names no documents, so origin and licence are not known")
    manifest = read_manifest(recipe.corpus.path, "documents")
    if manifest.digest != shards.parents.get("documents"):
        raise UserError(f"{recipe.corpus.path} holds other documents than the shards were made of")
    return manifest
