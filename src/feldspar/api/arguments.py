"""Arguments that many functions of the front door take: recipes, overrides and paths."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feldspar.core.errors import UserError

if TYPE_CHECKING:
    from feldspar.recipe.load import LoadedDataRecipe, LoadedRecipe, LoadedVisionRecipe

    AnyRecipe = LoadedRecipe | LoadedVisionRecipe | LoadedDataRecipe
    RecipeLike = str | os.PathLike[str] | AnyRecipe
    """A shipped recipe's name, a recipe file, a run folder, or what ``load_recipe`` returned."""

PathLike = str | os.PathLike[str]
Overrides = Sequence[str] | Mapping[str, Any]
"""``["seed=1"]`` or ``{"seed": 1}``; keys are dotted, such as ``phases.0.length``."""


def load_recipe(recipe: RecipeLike, overrides: Overrides | None = None) -> AnyRecipe:
    """Load a recipe of any kind and apply overrides to it.

    Raises UserError that names every problem of the recipe at once.
    """
    from feldspar.recipe.load import Loaded, load_any_recipe

    given = override_texts(overrides)
    if isinstance(recipe, Loaded):
        if not given:
            return recipe
        return load_any_recipe(recipe.reference, [*recipe.overrides, *given])
    return load_any_recipe(os.fspath(path_of(recipe, "recipe")), given)


def path_of(value: PathLike, name: str) -> Path:
    """Return a path of the user's. Raises UserError for anything else."""
    try:
        return Path(value)
    except TypeError:
        raise UserError(f"{name}: a path is needed", found=type(value).__name__) from None


def override_texts(overrides: Overrides | None) -> list[str]:
    """Return overrides as ``key=value`` texts. Raises UserError for anything else."""
    if overrides is None:
        return []
    if isinstance(overrides, Mapping):
        return [
            f"{key}={json.dumps(value, ensure_ascii=False, default=str)}"
            for key, value in overrides.items()
        ]
    given = [] if isinstance(overrides, str) else list(overrides)
    if isinstance(overrides, str) or not all(isinstance(each, str) for each in given):
        raise UserError(
            "overrides: a list of key=value texts, or a mapping of keys to values, is needed",
            found=overrides,
        )
    return given
