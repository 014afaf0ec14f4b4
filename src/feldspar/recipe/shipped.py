"""Find the recipes that come with the package by name: ``btlm/paper``, ``quickstart``.

The recipes of a paper are in its folder ``papers/NAME``; hyphens in the recipe's name are
underscores in the folder's. Other recipes are in ``recipes``.
"""

from importlib.resources import files
from pathlib import Path

from feldspar.core.errors import UserError, nearest
from feldspar.recipe.recorded import holds_recipe

PAPERS, OTHERS = "papers", "recipes"
"""Folders of the package with recipes."""
CLAIMS = "claims"
"""Name of a YAML file in a paper's folder that is not a recipe."""


def is_shipped(path: Path) -> bool:
    """Tell whether a file belongs to the package."""
    return path.resolve().is_relative_to(_package().resolve())


def shipped_names() -> list[str]:
    """Return the names of all shipped recipes that can be run.

    Shared parents (``method``, ``data/``) are left out.
    """
    names = _shipped_files()
    return sorted(n for n in names if not n.endswith("/method") and not n.startswith("data/"))


def find_recipe(reference: str) -> Path:
    """Return the file of a recipe, given as a path or a shipped name, or the folder of a run
    or a release.

    Raises UserError that names the nearest shipped recipe.
    """
    shipped = _shipped_files().get(reference)
    if shipped is not None:
        return shipped
    path = Path(reference)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    if path.is_dir() and holds_recipe(path):
        return path
    hint = nearest(reference, shipped_names())
    raise UserError(
        f"{reference!r} is neither a file nor a shipped recipe"
        + (f"; did you mean {hint!r}?" if hint else ""),
        allowed=shipped_names(),
    )


def _package() -> Path:
    return Path(str(files("feldspar")))


def _shipped_files() -> dict[str, Path]:
    """Return the files of all shipped recipes and of shared parents, by name."""
    papers, others = _package() / PAPERS, _package() / OTHERS
    found = {
        f"{path.parent.name.replace('_', '-')}/{path.stem}": path
        for path in papers.glob("*/*.yaml")
        if path.stem != CLAIMS
    }
    return found | {
        path.relative_to(others).with_suffix("").as_posix(): path for path in others.rglob("*.yaml")
    }
