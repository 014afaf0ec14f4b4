"""Complete recipes and runs on the command line, when a shell asks while its user types.

Where nothing here begins with what was typed, the shell completes names of files.
"""

import inspect
from collections.abc import Callable
from pathlib import Path

import typer

RUNS = "runs/"
"""Folder of runs by default."""


def complete_recipe(incomplete: str) -> list[str]:
    """Return shipped recipes, recipe files and runs that begin with what was typed."""
    from feldspar.recipe.shipped import shipped_names

    names = [name for name in shipped_names() if name.startswith(incomplete)]
    files = [path for path in _beginning_with(incomplete) if path.endswith((".yaml", ".yml"))]
    return [*names, *files, *complete_run(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Return run folders that begin with what was typed; for "r" those in ``runs`` too."""
    from feldspar.recipe.recorded import is_run

    usual = _beginning_with(RUNS) if RUNS.startswith(incomplete) else []
    found = dict.fromkeys([*usual, *_beginning_with(incomplete)])
    return [path for path in found if is_run(Path(path))]


def _beginning_with(incomplete: str) -> list[str]:
    """Return paths in the folder that was typed, as the user would write them."""
    folder, slash, beginning = incomplete.rpartition("/")
    try:
        names = sorted(path.name for path in Path(folder + slash).iterdir())
    except OSError:
        return []
    return [folder + slash + name for name in names if name.startswith(beginning)]


VALUES: dict[str, Callable[[str], list[str]]] = {
    "recipe": complete_recipe,
    "name": complete_recipe,
    "run": complete_run,
    "runs": complete_run,
    "model": complete_run,
    "path": complete_run,
}
"""Functions that complete an argument, by its name in the function of its command."""


def complete_arguments(app: typer.Typer) -> None:
    """Let the arguments of all commands be completed by ``VALUES``."""
    for command in app.registered_commands:
        if command.callback is None:
            continue
        for name, parameter in inspect.signature(command.callback).parameters.items():
            for given in getattr(parameter.annotation, "__metadata__", ()):
                if isinstance(given, typer.models.ArgumentInfo) and name in VALUES:
                    given.autocompletion = VALUES[name]
    for group in app.registered_groups:
        if group.typer_instance is not None:
            complete_arguments(group.typer_instance)
