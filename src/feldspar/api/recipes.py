"""Load, plan and size recipes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from feldspar.api.arguments import load_recipe, path_of
from feldspar.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feldspar.api.arguments import PathLike, RecipeLike
    from feldspar.plan.summary import Plan
    from feldspar.recipe.load import LoadedRecipe
    from feldspar.vision.plan import VisionPlan


def shipped_recipes() -> dict[str, str]:
    """Return the name and the description of every recipe that comes with feldspar."""
    from feldspar.recipe.load import load_any_recipe
    from feldspar.recipe.shipped import shipped_names

    return {name: load_any_recipe(name).recipe.description for name in shipped_names()}


def new_recipe(
    paths: Iterable[PathLike],
    out: PathLike,
    *,
    minutes: float = 5.0,
    parameters: float | None = None,
    text_field: str | None = None,
    start_from: PathLike | None = None,
    overwrite: bool = False,
) -> LoadedRecipe:
    """Write a recipe that trains on your own files in about ``minutes`` on this machine.

    ``paths`` are files and folders of text, source code, JSON lines, Parquet or web archives.
    ``text_field`` names the field of records that holds the text, where it is not clear.
    ``start_from`` is the folder of an open model to train on. Raises UserError for paths without
    text, and for an existing ``out`` unless ``overwrite``.
    """
    from feldspar.begin.new_recipe import make_recipe

    if isinstance(paths, str | os.PathLike):
        raise UserError("paths: a list of files or folders is needed", found=paths)
    given = [path_of(each, "paths") for each in paths]
    file = path_of(out, "out")
    base = None if start_from is None else path_of(start_from, "start_from")
    return make_recipe(given, file, minutes, parameters, text_field, base, overwrite).loaded


def plan(recipe: RecipeLike) -> Plan | VisionPlan:
    """Plan a recipe: its parameters, steps, FLOPs and memory, before anything is spent.

    ``plan(recipe).summary()`` holds all figures as plain values. Raises UserError for a recipe that
    does not fit its data.
    """
    from feldspar.recipe.load import LoadedVisionRecipe, language_recipe

    loaded = load_recipe(recipe)
    if isinstance(loaded, LoadedVisionRecipe):
        from feldspar.vision.plan import plan_vision_recipe

        with loaded.locating_errors():
            return plan_vision_recipe(loaded.recipe)
    from feldspar.train.data import plan_to_train

    return plan_to_train(language_recipe(loaded))


def estimate(
    recipe: RecipeLike,
    *,
    device: str | None = None,
    devices: int | None = None,
    utilisation: float | None = None,
    tokens_per_second: float | None = None,
    measured: PathLike | None = None,
    law: str | None = None,
    law_flops: float | None = None,
    measure_products: bool = False,
    inference: bool = False,
) -> dict[str, Any]:
    """Return a plan's summary with memory and time on an accelerator, and the loss by a law.

    ``device`` names the accelerator, such as H100. The speed follows from its data sheet and
    ``utilisation``, or is given by ``tokens_per_second`` or by a run folder (``measured``).
    ``measure_products`` times the products of masked matrices on this machine. ``inference`` adds
    the memory and the FLOPs of generating text. Raises UserError for options that contradict each
    other or the recipe.
    """
    from feldspar.recipe.load import language_recipe

    loaded = language_recipe(load_recipe(recipe))
    from feldspar.train.plan_questions import Questions, answer

    questions = Questions(
        device=device,
        devices=devices,
        utilisation=utilisation,
        tokens_per_second=tokens_per_second,
        measured=None if measured is None else path_of(measured, "measured"),
        law=law,
        law_flops=law_flops,
        measure_products=measure_products,
        inference=inference,
    )
    return answer(loaded, questions)[1]


def size(
    recipe: RecipeLike,
    budget: float,
    *,
    tokens_per_parameter: float | None = None,
    law: str | None = None,
) -> LoadedRecipe:
    """Return a recipe resized to ``budget`` training FLOPs (6 x parameters x tokens).

    The budget is split by ``tokens_per_parameter`` (default 20) or by a published ``law``. Raises
    UserError for a budget below that of the smallest model of the recipe's kind.
    """
    from feldspar.recipe.load import language_recipe

    loaded = language_recipe(load_recipe(recipe))
    from feldspar.train.plan_questions import size_loaded

    return size_loaded(loaded, budget, tokens_per_parameter, law).loaded
