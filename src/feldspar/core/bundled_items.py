"""Find the evaluation sets that come with the package, which ``evaluate`` and ``corpus`` read."""

from pathlib import Path

from feldspar.core.errors import UserError

PACKAGE = Path(__file__).parents[1]
BUNDLED_FOLDER = PACKAGE / "evaluate" / "tasks" / "bundled"
"""The definitions of the bundled tasks, with their items and licences."""
HUMANEVAL = PACKAGE / "evaluate" / "programs" / "humaneval" / "HumanEval.jsonl.gz"
PREFIX = "bundled:"


def bundled_names() -> list[str]:
    """Return the names of the bundled tasks, in the order of the alphabet."""
    return sorted(path.stem for path in BUNDLED_FOLDER.glob("*.yaml"))


def bundled_items(name: str) -> Path:
    """Return the file of a bundled task's items."""
    return BUNDLED_FOLDER / f"{name}.jsonl"


def evaluation_set_path(path: Path) -> Path:
    """Return the place of an evaluation set: ``bundled:NAME`` is in the package, else ``path``.

    NAME is a bundled task, or humaneval. Raises UserError for another NAME.
    """
    if not str(path).startswith(PREFIX):
        return path
    places = {name: bundled_items(name) for name in bundled_names()} | {"humaneval": HUMANEVAL}
    name = str(path).removeprefix(PREFIX)
    if name not in places:
        raise UserError(
            f"no evaluation set {name!r} comes with feldspar",
            found=str(path),
            allowed=[PREFIX + each for each in places],
        )
    return places[name]
