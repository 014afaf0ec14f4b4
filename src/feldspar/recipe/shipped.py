"""The recipes that come with the package, by name (``btlm/paper``)."""

from importlib.resources import files
from pathlib import Path

from feldspar.core.errors import UserError, nearest
from feldspar.recipe.recorded import is_run


def recipes_folder() -> Path:
    """Where the shipped recipes lie."""
    return Path(str(files("feldspar"))) / "recipes"


def shipped_names() -> list[str]:
    """All shipped recipes that can be run; shared parents (``method``, ``data/``) left out."""
    root = recipes_folder()
    names = (path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
    return sorted(n for n in names if not n.endswith("/method") and not n.startswith("data/"))


def find_recipe(reference: str) -> Path:
    """The file of a recipe given as a path or as a shipped name, or the folder of a run.

    Raises UserError that names the nearest shipped recipe.
    """
    path = Path(reference)
    shipped = recipes_folder() / f"{reference}.yaml"
    if shipped.is_file() and not path.is_absolute():
        return shipped
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    if path.is_dir() and is_run(path):
        return path
    hint = nearest(reference, shipped_names())
    raise UserError(
        f"{reference!r} is neither a file nor a shipped recipe"
        + (f"; did you mean {hint!r}?" if hint else ""),
        allowed=shipped_names(),
    )
