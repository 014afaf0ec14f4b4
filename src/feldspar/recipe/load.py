"""Load a recipe from a reference and overrides, validate it, and record the origin of each value.

Order: defaults < ``extends`` < file < ``choose`` < command line.
"""

import json
import shlex
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from feldspar.core.differences import differences
from feldspar.core.errors import UserError, nearest
from feldspar.core.files import digest_of
from feldspar.core.progress import say
from feldspar.recipe.data_root import DataRecipe
from feldspar.recipe.problems import key_named_in, recipe_error
from feldspar.recipe.recorded import RECIPE_NAME, Recorded, recorded_recipe, recorded_values
from feldspar.recipe.root import Recipe
from feldspar.recipe.shipped import find_recipe, is_shipped
from feldspar.recipe.tree import (
    Origins,
    dotted,
    merge,
    origin_of,
    replace_origin,
    set_value,
    split_key,
)
from feldspar.recipe.vision_root import VISION_KEYS, VisionRecipe
from feldspar.recipe.yaml import KeyPath, parse_yaml, read_yaml

COMMAND_LINE = "command line"
MAX_PARENTS = 8

Root = TypeVar("Root", bound=BaseModel)


@dataclass(frozen=True)
class Loaded:
    """A validated recipe of any kind, the plain values it was made from, and the origin of each."""

    recipe: Recipe | VisionRecipe | DataRecipe
    tree: dict[str, Any]
    origins: Origins
    reference: str = ""
    """File, shipped name or run folder that was given."""
    overrides: tuple[str, ...] = ()
    """``key=value`` overrides that were given."""

    @property
    def arguments(self) -> str:
        """Recipe and overrides, quoted as arguments of a shell command."""
        return shlex.join([self.reference or "RECIPE", *self.overrides])

    @contextmanager
    def locating_errors(self) -> Generator[None]:
        """Add the place of a key to errors of the block whose message begins with that key."""
        try:
            yield
        except UserError as error:
            key = key_named_in(error.what)
            if error.where is None and key is not None:
                error.where = origin_of(self.origins, key)
            raise

    @property
    def digest(self) -> str:
        """Digest of all values of the recipe; it does not depend on where they were written."""
        return digest_of(self.recipe.model_dump_json(exclude={"choices", "choose", "description"}))


@dataclass(frozen=True)
class LoadedRecipe(Loaded):
    """A recipe of a language model."""

    recipe: Recipe


@dataclass(frozen=True)
class LoadedVisionRecipe(Loaded):
    """A recipe of a vision model."""

    recipe: VisionRecipe


@dataclass(frozen=True)
class LoadedDataRecipe(Loaded):
    """A recipe of documents without a model."""

    recipe: DataRecipe


def plain(loaded: Loaded) -> dict[str, Any]:
    """Return the recipe's values as plain JSON."""
    return json.loads(loaded.recipe.model_dump_json(by_alias=True))


def load_recipe(
    reference: str, overrides: list[str] | None = None, recorded: Recorded | None = None
) -> LoadedRecipe:
    """Load a recipe file, a shipped recipe or the recipe of a run, and apply ``key=value``
    overrides.

    The recipe of a run is ``recorded``, or else the one in its newest checkpoint. Raises UserError
    with all problems of a recipe that does not fit the schema.
    """
    return language_recipe(load_any_recipe(reference, overrides, recorded))


def load_data_recipe(
    reference: str, overrides: list[str] | None = None
) -> LoadedRecipe | LoadedDataRecipe:
    """Load a recipe for its documents and tokens; a model is optional.

    Raises UserError as ``load_recipe`` does.
    """
    return data_recipe(load_any_recipe(reference, overrides))


def load_vision_recipe(
    reference: str, overrides: list[str] | None = None, recorded: Recorded | None = None
) -> LoadedVisionRecipe:
    """Load a recipe of a vision model as ``load_recipe`` loads one of a language model.

    Raises UserError for a recipe of a language model.
    """
    return vision_recipe(load_any_recipe(reference, overrides, recorded))


def language_recipe(loaded: Loaded) -> LoadedRecipe:
    """Return a loaded recipe of a language model. Raises UserError for any other kind."""
    if isinstance(loaded, LoadedRecipe):
        return loaded
    if isinstance(loaded, LoadedDataRecipe):
        raise UserError(
            f"{loaded.reference} describes documents only: it has no model and no phases",
            do="add the sections model, parametrization and phases; without them, only "
            "corpus build and tokens build can use it",
        )
    raise _of_vision(loaded.reference)


def data_recipe(loaded: Loaded) -> LoadedRecipe | LoadedDataRecipe:
    """Return a loaded recipe that may have documents. Raises UserError for a vision model's."""
    if isinstance(loaded, LoadedRecipe | LoadedDataRecipe):
        return loaded
    raise _of_vision(loaded.reference)


def vision_recipe(loaded: Loaded) -> LoadedVisionRecipe:
    """Return a loaded recipe of a vision model. Raises UserError for any other kind."""
    if isinstance(loaded, LoadedVisionRecipe):
        return loaded
    raise UserError(
        f"{loaded.reference} is not a recipe of a vision model: it has no section images",
        allowed=VISION_KEYS,
        do="use the same command without vision",
    )


def _of_vision(reference: str) -> UserError:
    return UserError(
        f"{reference} is the recipe of a vision model, which this command does not take",
        do="see those that do: feldspar vision --help",
    )


def load_any_recipe(
    reference: str, overrides: list[str] | None = None, recorded: Recorded | None = None
) -> LoadedRecipe | LoadedVisionRecipe | LoadedDataRecipe:
    """Load a recipe of any kind.

    One with sections that only vision has is a vision recipe; one with a corpus, and no section
    that only training needs, describes documents.
    """
    path = find_recipe(reference)
    if path.is_dir():
        recorded = recorded or recorded_recipe(path)
        path = path / RECIPE_NAME
    if recorded is None:
        tree, origins, folders = _read_with_parents(path, ())
    else:
        tree, origins, folders = recorded.values, _origins_of(recorded, path), {}
    loaded = _loaded(tree, origins, folders, overrides)
    return replace(loaded, reference=reference, overrides=tuple(overrides or ()))


def _loaded(
    tree: dict[str, Any], origins: Origins, folders: dict[str, Path], overrides: list[str] | None
) -> LoadedRecipe | LoadedVisionRecipe | LoadedDataRecipe:
    given = [_parse_override(text) for text in overrides or []]
    for key, value in (pair for pair in given if pair[0][0] == "choose"):
        tree, origins = _override(tree, origins, key, value, COMMAND_LINE)
    tree, origins = _apply_choices(tree, origins)
    for key, value in (pair for pair in given if pair[0][0] != "choose"):
        tree, origins = _override(tree, origins, key, value, COMMAND_LINE)
    if any(key in tree for key in VISION_KEYS):
        recipe = _checked(VisionRecipe, tree, origins)
        recipe = _with_absolute_paths(recipe, (), origins, folders)
        return LoadedVisionRecipe(recipe, tree, origins)
    if "corpus" in tree and set(tree) <= set(DataRecipe.model_fields):
        documents = _checked(DataRecipe, tree, origins)
        documents = _with_absolute_paths(documents, (), origins, folders)
        return LoadedDataRecipe(documents, tree, origins)
    recipe = _checked(Recipe, tree, origins)
    loaded = LoadedRecipe(_with_absolute_paths(recipe, (), origins, folders), tree, origins)
    with loaded.locating_errors():
        return replace(loaded, recipe=_with_vocabulary(loaded.recipe))


def _origins_of(recorded: Recorded, path: Path) -> Origins:
    """Return the line of ``recipe.yaml`` for each recorded value, or else the checkpoint's file.

    Prints a warning where the two differ; the checkpoint's values are used.
    """
    try:
        told = _loaded(*_read_with_parents(path, ()), None)
        changes = differences(recorded.values, recorded_values(plain(told)))
        if not changes:
            return told.origins
        key, old, new = changes[0]
        reason = f"was altered: {key} is {new}, but the run had {old}"
    except (UserError, OSError):
        reason = "is missing or is not a recipe"
    say(f"warning: {path} {reason}; the recipe is taken from {recorded.place}")
    return {(key,): str(recorded.place) for key in recorded.values}


def _checked(root: type[Root], tree: dict[str, Any], origins: Origins) -> Root:
    try:
        return root.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise recipe_error(error, root, tree, origins) from None


def read_tree(reference: str) -> tuple[dict[str, Any], Origins, dict[str, Path]]:
    """Read a recipe and merge its parents in, before any choice is applied.

    Also returns the origin of each key, and for each file the base folder of its paths.
    """
    return _read_with_parents(find_recipe(reference), ())


def _read_with_parents(
    path: Path, seen: tuple[Path, ...]
) -> tuple[dict[str, Any], Origins, dict[str, Path]]:
    """Return the merged values, the origin of each key, and the folder of each file's paths."""
    if path.resolve() in seen or len(seen) >= MAX_PARENTS:
        chain = " -> ".join(str(item) for item in (*seen, path))
        raise UserError(f"extends: the parents form a loop, or are too many: {chain}")
    value, lines = read_yaml(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} must be a mapping of sections", found=value)
    origins: Origins = {key: f"{path}:{line}" for key, line in lines.items()}
    folders = {str(path): Path.cwd() if is_shipped(path) else path.resolve().parent}
    given = value.pop("extends", [])
    parents = [given] if isinstance(given, str) else given
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError(
            "extends: give a file or a shipped name, or a list of them",
            where=origins["extends",],
            found=given,
        )
    tree: dict[str, Any] = {}
    inherited: Origins = {}
    for index, parent in enumerate(parents):
        where = origin_of(origins, ("extends", index))
        found, found_origins, found_folders = _read_with_parents(
            _parent_file(path, parent, where), (*seen, path.resolve())
        )
        tree, inherited = merge(tree, found), inherited | found_origins
        folders = found_folders | folders
    return merge(tree, value), inherited | origins, folders


def _parent_file(path: Path, parent: str, where: str) -> Path:
    """Return the file that ``extends: parent`` names in the recipe ``path``."""
    beside = path.parent / parent
    if beside.is_file():
        return beside
    if beside.suffix in (".yaml", ".yml"):
        raise UserError(f"extends: the file {beside} does not exist", where=where)
    try:
        return find_recipe(parent)
    except UserError as error:
        error.where = error.where or where
        raise


def _parse_override(text: str) -> tuple[KeyPath, Any]:
    key, separator, value_text = text.partition("=")
    if not separator:
        raise UserError(
            f"{text!r} is not an override", allowed="key=value, for example model.d_model=512"
        )
    value, _ = parse_yaml(value_text, f"override {key}")
    return split_key(key.strip()), value


def _override(
    tree: dict[str, Any], origins: Origins, key: KeyPath, value: Any, origin: str
) -> tuple[dict[str, Any], Origins]:
    try:
        return set_value(tree, key, value), replace_origin(origins, key, origin)
    except UserError as error:
        raise UserError(f"{dotted(key)}: {error.what}", where=origin) from None


def _apply_choices(tree: dict[str, Any], origins: Origins) -> tuple[dict[str, Any], Origins]:
    choices = tree.get("choices") or {}
    chosen = tree.get("choose") or {}
    if not _are_tables(choices, chosen):
        return tree, origins  # validation reports what is wrong
    for name in chosen:
        if name not in choices:
            hint = nearest(name, choices)
            raise UserError(
                f"choose.{name}: the recipe has no such choice"
                + (f"; did you mean {hint!r}?" if hint else ""),
                where=origin_of(origins, ("choose", name)),
                allowed=choices,
            )
    for name, options in choices.items():
        if name not in chosen:
            continue
        option = str(chosen[name])
        if option not in options:
            hint = nearest(option, options)
            raise UserError(
                f"choose.{name}: {option!r} is not one of its options"
                + (f"; did you mean {hint!r}?" if hint else ""),
                where=origin_of(origins, ("choose", name)),
                allowed=options,
            )
        for key, value in (options[option] or {}).items():
            where = origin_of(origins, ("choices", name, option, key))
            tree, origins = _override(tree, origins, split_key(key), value, where)
    return tree, origins


def _are_tables(choices: Any, chosen: Any) -> bool:
    if not isinstance(choices, dict) or not isinstance(chosen, dict):
        return False
    options = [
        option
        for choice in choices.values()
        if isinstance(choice, dict)
        for option in choice.values()
    ]
    return all(isinstance(choice, dict) for choice in choices.values()) and all(
        isinstance(option, dict | None) for option in options
    )


def _with_absolute_paths(
    section: Any, path: KeyPath, origins: Origins, folders: dict[str, Path]
) -> Any:
    """Return values with absolute paths: relative to the folder of the file that gives them, else
    to the working folder."""
    if isinstance(section, Path):
        file = origin_of(origins, path).rpartition(":")[0]
        return folders.get(file, Path.cwd()) / section.expanduser()
    if isinstance(section, BaseModel):
        updates = {
            name: _with_absolute_paths(value, (*path, name), origins, folders)
            for name, value in section
            if isinstance(value, Path | BaseModel | dict | tuple)
        }
        return section.model_copy(update=updates)
    if isinstance(section, dict):
        return {
            key: _with_absolute_paths(value, (*path, key), origins, folders)
            for key, value in section.items()
        }
    if isinstance(section, tuple):
        return tuple(
            _with_absolute_paths(value, (*path, index), origins, folders)
            for index, value in enumerate(section)
        )
    return section


def _with_vocabulary(recipe: Recipe) -> Recipe:
    """Set the model's vocabulary to the tokenizer's size if the recipe does not give one.

    Raises UserError for one that is smaller.
    """
    declared = getattr(recipe.tokenizer, "vocab_size", None)
    size = recipe.model.vocab_size
    if size is not None and declared is not None and size < declared:
        raise UserError(
            f"model.vocab_size: {size} rows are fewer than the tokenizer's {declared} "
            "tokens; give at least as many",
            allowed=f"at least {declared}",
        )
    if size is not None or declared is None:
        return recipe
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(
                update={"vocab_size": recipe.vocabulary_rows(declared)}
            )
        }
    )
