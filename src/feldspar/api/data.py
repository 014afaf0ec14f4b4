"""Build documents and shards from text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from feldspar.api.arguments import load_recipe, path_of
from feldspar.core.errors import UserError

if TYPE_CHECKING:
    from feldspar.api.arguments import PathLike, RecipeLike
    from feldspar.core.engines import Engine
    from feldspar.corpus.report import Report
    from feldspar.tokens.shards.build_shards import ShardReport


def build_corpus(
    recipe: RecipeLike,
    out: PathLike | None = None,
    *,
    engine: Engine = "processes",
    workers: int = 0,
    skip_bad: int = 0,
    offline: bool = False,
    overwrite: bool = False,
) -> Report:
    """Read, clean, deduplicate and split a recipe's text into documents.

    ``out`` replaces the recipe's ``corpus.path``; ``workers`` 0 means one a core. Raises UserError
    for bad data and for a folder of other settings unless ``overwrite``.
    """
    from feldspar.prepare.build import build_documents
    from feldspar.recipe.load import data_recipe

    return build_documents(
        data_recipe(load_recipe(recipe)),
        offline,
        out=None if out is None else path_of(out, "out"),
        workers=workers,
        engine=engine,
        skip_bad=skip_bad,
        overwrite=overwrite,
    )


def deduplicate(
    inputs: Iterable[PathLike],
    out: PathLike,
    settings: Mapping[str, Any] | None = None,
    *,
    text_field: str = "text",
    id_field: str = "id",
    source: str | None = None,
    short: int = 200,
    engine: Engine = "processes",
    workers: int = 0,
    skip_bad: int = 0,
    overwrite: bool = False,
) -> Report:
    """Remove exact and near duplicates from Parquet or JSONL files; write the rest into ``out``.

    ``settings`` are those of a recipe's ``corpus.deduplicate``, such as ``{"threshold": 0.9}``.
    Documents of fewer than ``short`` characters are dropped. Raises UserError for bad data and for
    a folder of other settings unless ``overwrite``.
    """
    from feldspar.corpus.files import deduplicate_files, deduplicate_settings, workers_for

    if isinstance(inputs, str | os.PathLike):
        raise UserError("inputs: a list of files or folders is needed", found=inputs)
    files = [path_of(each, "inputs") for each in inputs]
    return deduplicate_files(
        files,
        path_of(out, "out"),
        deduplicate_settings(settings or {}),
        text_field=text_field,
        id_field=id_field,
        source=source,
        short=short,
        workers=workers_for(files, engine, workers),
        engine=engine,
        skip_bad=skip_bad,
        overwrite=overwrite,
    )


def build_shards(
    recipe: RecipeLike, *, workers: int | None = None, overwrite: bool = False
) -> ShardReport:
    """Train a recipe's tokenizer and encode its documents; documents that are missing come first.

    Raises UserError for a recipe without the sections, and for a folder of other settings unless
    ``overwrite``.
    """
    from feldspar.prepare.build import build_tokens
    from feldspar.recipe.load import data_recipe

    loaded = data_recipe(load_recipe(recipe))
    return build_tokens(loaded, workers=workers, overwrite=overwrite)
