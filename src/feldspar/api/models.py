"""Train, open, measure, import and release models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feldspar.api.arguments import load_recipe, path_of
from feldspar.core.errors import UserError
from feldspar.core.progress import progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feldspar.api.arguments import PathLike, RecipeLike
    from feldspar.recipe.sections.model import ModelSettings
    from feldspar.train.lifecycle import RunResult
    from feldspar.train.opened_model import Model


def train(
    recipe: RecipeLike,
    out: PathLike | None = None,
    *,
    overwrite: bool = False,
    build: bool = True,
    offline: bool = False,
) -> RunResult:
    """Train a recipe in the run folder ``out`` (default ``runs/NAME``), or continue the run there.

    Documents, tokenizer and shards that are missing are built first; with ``build=False`` they are
    refused. ``overwrite`` starts anew; ``offline`` builds from cached archives only. The result
    tells folder, position (tokens or images), steps and the last validation. Raises UserError for
    a recipe that does not fit its data or the run, RunError when the loss is not finite.
    """
    from feldspar.recipe.load import LoadedVisionRecipe, language_recipe

    loaded = load_recipe(recipe)
    folder = Path("runs") / loaded.recipe.name if out is None else path_of(out, "out")
    if isinstance(loaded, LoadedVisionRecipe):
        with progress("loading PyTorch", unit=""):
            from feldspar.vision.run import train_on_images

        return train_on_images(loaded, folder, overwrite)
    from feldspar.prepare.build import build_missing, require_ready

    loaded = language_recipe(loaded)
    if build:
        build_missing(loaded, offline=offline)
    else:
        require_ready(loaded)
    with progress("loading PyTorch", unit=""):
        from feldspar.train.run import train as train_recipe

    return train_recipe(loaded, folder, overwrite)


def open_model(path: PathLike, *, checkpoint: str = "last", device: str | None = None) -> Model:
    """Open a run folder, a release, an imported folder, a Hugging Face folder, or a GGUF file.

    Without a tokenizer in the folder, the model computes logits of token ids only.
    ``checkpoint`` of a run is ``last``, ``best`` or a number of tokens. The model lies on
    ``device``, by default on the one of the run's recipe. Raises UserError for any other folder or
    file, RunError for a damaged one.
    """
    folder = path_of(path, "path")
    _require_model(folder)
    with progress("loading PyTorch", unit=""):
        from feldspar.train.opened_model import open_model as open_folder

    with progress(f"opening {folder}", unit=""):
        return open_folder(folder, checkpoint, device)


def evaluate(
    run: PathLike | Model,
    *,
    split: str = "test",
    limit: int | None = None,
    baselines: bool = False,
    checkpoint: str = "last",
    shards: PathLike | None = None,
) -> dict[str, Any]:
    """Measure a run on its held-out data; return the figures by name.

    A language model gets bits per byte for each source, with ``baselines`` (compressors, a trigram)
    beside it where asked for; ``limit`` is the most tokens of each source, ``shards`` the folder of
    its shards where it is not the one in its recipe. ``checkpoint`` in the figures is what was
    measured: its tokens, and the SHA-256 of its weights. A vision model gets the measures of its
    task on its validation images. Raises UserError for a model without held-out data.
    """
    from feldspar.train.opened_model import Model

    if isinstance(run, Model):
        model = run
    else:
        folder = path_of(run, "run")
        _require_model(folder)
        if _is_vision_run(folder):
            from feldspar.vision.evaluate import evaluate_run

            return evaluate_run(folder, checkpoint=checkpoint)
        model = open_model(folder, checkpoint=checkpoint)
    from feldspar.train.evaluation import held_out_figures

    own = None if shards is None else path_of(shards, "shards")
    return held_out_figures(model, split, limit, baselines, own).as_dict()


def evaluate_tasks(
    run: PathLike | Model,
    tasks: Sequence[str] = ("bundled",),
    *,
    include_path: PathLike | None = None,
    limit: int | None = None,
    checkpoint: str = "last",
) -> dict[str, dict[str, Any]]:
    """Run tasks of lm-eval on a run or an exported model; return the figures by task.

    ``tasks`` are names of bundled tasks (``bundled`` for all of them), of task files in the folder
    ``include_path``, or of lm-eval's own tasks, whose data come from the network. ``limit`` is the
    most items of a task. Each task's figures are its metrics with their standard errors
    (``acc_stderr``), the accuracy of guessing (``chance``), the number of ``items`` and ``shots``,
    the task's ``version`` and the ``harness``; those of a run name the ``checkpoint`` too. Raises
    SetupError without lm-eval, UserError for an unknown task.
    """
    from feldspar.train.opened_model import Model

    if isinstance(tasks, str):
        raise UserError("tasks: a list of names is needed", found=tasks)
    opened = run if isinstance(run, Model) else open_model(run, checkpoint=checkpoint)
    from feldspar.train.evaluation import task_figures

    folder = None if include_path is None else path_of(include_path, "include_path")
    return task_figures(opened, list(tasks), folder, limit)


def import_model(
    source: PathLike, to: PathLike, *, overwrite: bool = False, convert_pickles: bool = False
) -> ModelSettings:
    """Read a model of a known architecture and write it as weights that a recipe starts from.

    ``source`` is a folder, a GGUF file, or the name of a base that a package holds, such as
    ``smollm2-135m``. The result is the recipe's ``model`` section. No code of the model is run.
    Pickled weights are refused unless ``convert_pickles``: a process of its own then reads tensors,
    and nothing else, from them.
    Raises UserError for another architecture, and where ``to`` exists already unless ``overwrite``.
    """
    from feldspar.prepare.bases import import_source

    name, target = str(path_of(source, "source")), path_of(to, "to")
    return import_source(name, target, overwrite=overwrite, convert_pickles=convert_pickles)


def adapt(
    base: PathLike,
    to: PathLike,
    *,
    tokenizer: PathLike,
    initialisation: str = "subword_mean",
    donor: PathLike | None = None,
    pad_rows_to: int = 1,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the model in ``base`` with rows for the tokens that an extended tokenizer adds.

    ``initialisation`` is random, mean, mean_cov, normal_matched, subword_mean, linear_projection,
    similar_topk or focus; the last three take rows from a ``donor``. The result tells how the rows
    began; ``new_rows.jsonl`` in ``to`` says for each row where it came from. Raises UserError for a
    tokenizer that does not extend the model's.
    """
    from feldspar.recipe.sections.adapt import adapt_settings

    settings = adapt_settings(initialisation, None if donor is None else str(donor), pad_rows_to)
    from feldspar.train.adapt_model import adapt_model

    folder, target = path_of(base, "base"), path_of(to, "to")
    made = path_of(tokenizer, "tokenizer")
    return adapt_model(folder, made, target, settings, seed, overwrite).record()


def extend_context(
    model: PathLike | Model,
    *,
    factor: float | None = None,
    train_length: int | None = None,
    kind: str = "linear",
    length: int | None = None,
    to: PathLike | None = None,
    overwrite: bool = False,
) -> Model:
    """Return a model that reads longer texts; positions are scaled, and weights stay.

    ``factor`` is the wanted length over the trained one. ``train_length`` instead divides by how
    much a text is longer than the trained one, so that shorter texts are read as before. ``kind``
    is linear or ntk, for rotary positions also yarn or llama3; these two take both numbers, with
    the model's longest context as the default of ``train_length``. ``length`` is the longest
    context of the result in tokens, by default ``factor`` times the model's; alone, it raises the
    limit and scales nothing. A table of learned positions is stretched by a linear ``factor``,
    with rows between its own. ``to`` also writes the model as a folder that ``export``,
    ``evaluate`` and ``start_from`` take. A model that is given stays as it is and shares its
    weights. Raises UserError for values out of range, for positions that cannot be scaled so, and
    where ``to`` exists already unless ``overwrite``.
    """
    from feldspar.train.opened_model import Model as OpenedModel

    given = model if isinstance(model, OpenedModel) else open_model(model)
    from feldspar.train.extend_context import Extension, write_extended
    from feldspar.train.extend_context import extend_context as extend

    wanted = Extension(kind, factor, train_length, length)
    extended = extend(given, wanted)
    if to is not None:
        write_extended(given.path, path_of(to, "to"), wanted, overwrite)
    return extended


def export(
    run: PathLike,
    to: PathLike,
    *,
    architecture: str = "auto",
    checkpoint: str = "last",
    dtype: str | None = None,
    overwrite: bool = False,
    file_format: str = "hf",
) -> ModelSettings:
    """Write the model of a run, or an imported one, for ``transformers`` or for llama.cpp.

    ``run`` may be an imported folder, a Hugging Face folder or a GGUF file too. ``file_format`` is
    ``hf`` (``to`` is a folder), ``gguf`` (``to`` is a file) or ``peft``: the updates of LoRA at a
    checkpoint of a run, in a folder that names their base. The base is the folder that the run
    started from if its weights are the run's still, else it is written into the folder ``base`` of
    ``to``; the result describes it. ``architecture`` is the name of one,
    or auto: for a run the first that can express its model, for an imported model that of its
    source. ``dtype`` is float32, bfloat16 or float16, for GGUF also q8_0; by default float32 for a
    run, and the type of each tensor for an imported model. The result describes the model that was
    written. Raises UserError where ``to`` exists already unless ``overwrite``, for a model that the
    architecture or the format cannot express, for a ``checkpoint`` of what is no run, and for
    ``peft`` where there are no updates.
    """
    from feldspar.prepare.bases import holds_model
    from feldspar.recipe.recorded import is_run
    from feldspar.runtime.run_folder import require_run

    path, target = path_of(run, "run"), path_of(to, "to")
    if (path.is_file() or holds_model(path)) and not is_run(path):
        if checkpoint != "last":
            raise UserError("checkpoint: only a run has checkpoints", where=str(path))
        if file_format == "peft":
            raise UserError("--format peft: only a run has updates of LoRA", where=str(path))
        from feldspar.release.export_run import export_foreign

        return export_foreign(path, target, architecture, dtype, overwrite, file_format)
    require_run(path)
    if file_format == "peft":
        from feldspar.release.export_adapter import export_adapter

        return export_adapter(path, target, architecture, checkpoint, dtype, overwrite)
    from feldspar.release.export_run import export_run

    return export_run(path, target, architecture, checkpoint, dtype, overwrite, file_format)


def release(
    run: PathLike,
    to: PathLike | None = None,
    *,
    checkpoints: Literal["none", "weights", "all"] = "all",
    licence: str | None = None,
    authors: Sequence[str] = (),
    evaluations: Sequence[PathLike] = (),
    overwrite: bool = False,
) -> Path:
    """Release a run: model, card, recipe, records, data order and checkpoints; return the folder.

    ``to`` is by default the folder ``release`` of the run. ``checkpoints`` says what is released of
    those that the run kept: nothing, their weights, or all they hold. ``licence`` is that of the
    weights, ``authors`` are names. ``evaluations`` are files that hold what
    ``feldspar evaluate --json`` printed. Raises UserError where the folder exists already unless
    ``overwrite``.
    """
    if isinstance(authors, str):
        raise UserError("authors: a list of names is needed", found=authors)
    from feldspar.runtime.run_folder import require_run

    folder = path_of(run, "run")
    require_run(folder)
    from feldspar.release.release_run import release_run

    return release_run(
        folder,
        folder / "release" if to is None else path_of(to, "to"),
        overwrite,
        checkpoints=checkpoints,
        licence=licence,
        authors=authors,
        evaluations=[path_of(each, "evaluations") for each in evaluations],
    )


def verify_release(folder: PathLike, *, shards: PathLike | None = None) -> list[str]:
    """Verify every byte of a release and what it states of itself; return the faults, a line each.

    Where the shards are at hand (``shards``, or the place that the recipe names), the order of the
    data is recomputed too. Raises UserError for a folder that is no release, RunError for an
    altered manifest.
    """
    from feldspar.release.verify import verify_release as verify

    given = None if shards is None else path_of(shards, "shards")
    return list(verify(path_of(folder, "folder"), given).problems)


def step_order(folder: PathLike, step: int, *, shards: PathLike | None = None) -> dict[str, Any]:
    """Return which tokens of which shards a step of a released run read, sequence by sequence.

    ``shards`` is by default the folder that the recipe names. Raises UserError for a release
    without a data order, a step that the run did not take, and other shards than the run's.
    """
    from feldspar.release.released_order import step_order as places

    return places(
        path_of(folder, "folder"), step, None if shards is None else path_of(shards, "shards")
    )


def unpack_release(folder: PathLike, to: PathLike, *, checkpoint: str = "last") -> Path:
    """Write a run folder with a checkpoint of a release, which ``train`` continues bit for bit.

    ``checkpoint`` is last or a number of tokens. Raises UserError where ``to`` exists, and for a
    checkpoint that the release lacks or that holds weights only.
    """
    from feldspar.release.unpack import unpack_release as unpack

    return unpack(path_of(folder, "folder"), path_of(to, "to"), checkpoint)


def upload_release(folder: PathLike, name: str, *, public: bool = False) -> str:
    """Upload a release to a hub of models as ``name`` (OWNER/NAME); return its address.

    The branch ``main`` gets the release, and each released checkpoint a branch with its model. A
    new repository is private unless ``public``. Token and endpoint are those of
    ``huggingface_hub``. Raises UserError for a release that is not whole, SetupError where the hub
    or the network refuses.
    """
    from feldspar.release.upload import upload_release as upload

    return upload(path_of(folder, "folder"), name, public)


def _require_model(folder: Path) -> None:
    """Raise UserError for a folder that holds no model, before torch is loaded."""
    from feldspar.recipe.recorded import is_run
    from feldspar.runtime.run_folder import require_run

    if not folder.exists():
        raise UserError(f"{folder} is no folder: neither a run nor a Hugging Face model")
    if is_run(folder):
        require_run(folder)


def _is_vision_run(folder: Path) -> bool:
    from feldspar.recipe.load import LoadedVisionRecipe, load_any_recipe
    from feldspar.recipe.recorded import is_run

    return is_run(folder) and isinstance(load_any_recipe(str(folder)), LoadedVisionRecipe)
