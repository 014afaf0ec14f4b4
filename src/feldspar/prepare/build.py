"""Build the missing inputs of a recipe: its base, ontology, documents, tokenizer and shards.

Finished stages are kept, and a build that was stopped goes on.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from feldspar.core.errors import UserError
from feldspar.core.execution import available_cores
from feldspar.core.progress import say
from feldspar.prepare.bases import holds_model, import_source
from feldspar.prepare.stages import STARTS, AnyLoaded, Stage, State, stages_of, starts_of
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.start_from import StartFromHuggingFace

if TYPE_CHECKING:
    from feldspar.core.engines import Engine
    from feldspar.corpus.report import Report
    from feldspar.tokens.shards.build_shards import ShardReport


def build_missing(
    loaded: AnyLoaded, *, offline: bool = False, without: Collection[str] = ()
) -> list[Stage]:
    """Build the missing stages; return all stages but those named in ``without``.

    ``offline`` uses only archives that were fetched before. Raises UserError, before anything is
    built, for a stage that cannot be built or was built otherwise. Raises the builders' errors.
    """
    stages = [stage for stage in stages_of(loaded) if stage.name not in without]
    require_buildable(stages)
    names = {stage.name for stage in stages if stage.state is State.TO_BUILD}
    if not names:
        return stages
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        require_ready(loaded, stages)
    if not names.isdisjoint(STARTS):
        import_bases(loaded, offline)
    if "documents" in names:
        build_documents(loaded, offline)
    elif "ontology" in names:
        build_only_ontology(loaded, offline)
    if "shards" in names:
        build_tokens(loaded)
    return stages


def require_buildable(stages: list[Stage]) -> None:
    """Raise the error of the first stage that is missing or refused."""
    for stage in stages:
        if stage.state in (State.MISSING, State.REFUSED):
            if stage.error is not None:
                raise stage.error
            raise UserError(stage.note, found=stage.found, do=stage.do)


def require_ready(loaded: AnyLoaded, stages: list[Stage] | None = None) -> None:
    """Raise UserError, with the commands to give, where a stage is still to build."""
    stages = stages_of(loaded) if stages is None else stages
    require_buildable(stages)
    missing = [stage for stage in stages if stage.state is State.TO_BUILD]
    if missing:
        commands = dict.fromkeys(stage.do for stage in missing if stage.do)
        raise UserError(
            f"{missing[0].name}: {missing[0].path} is not built yet",
            do=" && ".join(commands),
        )


def import_bases(loaded: AnyLoaded, offline: bool = False) -> None:
    """Import the bases that the settings of ``STARTS`` name, unless their folders hold a model.

    Raises UserError where downloads are off, and as ``model_source``.
    """
    for start in starts_of(loaded.recipe) if isinstance(loaded.recipe, Recipe) else ():
        if not isinstance(start, StartFromHuggingFace) or start.base is None:
            continue
        if not holds_model(path := Path(start.path)):
            say(f"base: {start.base} into {path}")
            import_source(start.base, path, offline=offline)


def build_only_ontology(loaded: AnyLoaded, offline: bool) -> None:
    """Write the folder of the ontology."""
    from feldspar.corpus.ontology import build_ontology

    corpus = loaded.recipe.corpus
    assert corpus is not None and corpus.ontology is not None, "its stage says so"
    say(f"ontology: {corpus.ontology.path}")
    build_ontology(corpus.ontology, offline)


def build_documents(
    loaded: AnyLoaded,
    offline: bool = False,
    *,
    out: Path | None = None,
    command: str | None = None,
    workers: int = 0,
    engine: "Engine" = "processes",
    skip_bad: int = 0,
    overwrite: bool = False,
) -> "Report":
    """Read, clean, deduplicate and split the sources, unless that is done.

    ``out`` replaces ``corpus.path``. ``workers`` 0 means one for each core. The other options are
    those of ``build_corpus``. ``command`` is the command that the manifest records. Raises
    UserError for a recipe without the section ``corpus``, and the errors of ``build_corpus``.
    """
    corpus = loaded.recipe.corpus
    if corpus is None:
        raise UserError(f"{loaded.reference} has no section corpus")
    from feldspar.core.engines import workers_of
    from feldspar.corpus.build import build_corpus

    folder = out or corpus.path
    say(f"documents: {', '.join(corpus.sources)} into {folder}")
    return build_corpus(
        corpus,
        folder,
        command=command or f"feldspar corpus build {loaded.arguments}",
        workers=workers_of(engine, workers),
        engine=engine,
        skip_bad=skip_bad,
        offline=offline,
        overwrite=overwrite,
    )


def build_tokens(
    loaded: AnyLoaded, *, workers: int | None = None, overwrite: bool = False
) -> "ShardReport":
    """Train or read the tokenizer and encode the documents, unless that is done.

    Missing documents are built first. Raises UserError for a recipe without one of the sections,
    and the builders' errors.
    """
    recipe = loaded.recipe
    corpus, tokenizer, shards = recipe.corpus, recipe.tokenizer, recipe.shards
    if corpus is None or tokenizer is None or shards is None:
        sections = {"corpus": corpus, "tokenizer": tokenizer, "shards": shards}
        missing = [name for name, section in sections.items() if section is None]
        raise UserError(
            f"{loaded.reference} has no section {' and no section '.join(missing)}: nothing to "
            "encode"
        )
    if not corpus.path.exists():
        build_missing(loaded, without=(*STARTS, "tokenizer", "shards", "pairs", "messages"))
    import_bases(loaded)
    from feldspar.tokens.shards.build_shards import build_shards

    say(f"tokenizer and shards: {corpus.path} into {shards.path}")
    return build_shards(
        corpus.path,
        tokenizer,
        shards,
        seed=recipe.seed,
        command=f"feldspar tokens build {loaded.arguments}",
        workers=available_cores() if workers is None else workers,
        overwrite=overwrite,
        infilling_scopes=recipe.infilling_scopes,
    )
