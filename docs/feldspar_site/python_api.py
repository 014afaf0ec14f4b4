"""The page of the Python API: every name that ``feldspar`` offers, from its docstring."""

import inspect
import sys

import feldspar
import feldspar.vision

INTRO = """# Python API
What `import feldspar` offers. [From Python and notebooks](../python.md) shows it in use.
"""
VISION = "feldspar.vision"
FIRST = "feldspar.api.recipes"
"""The file whose functions come first, and with them those of the file of arguments."""
ARGUMENTS = "feldspar.api.arguments"


def python_page() -> str:
    """Return the page: the names of each file under what its docstring says the file is for."""
    groups: dict[tuple[int, str, str], list[str]] = {}
    for module in (feldspar, feldspar.vision):
        for name in module.__all__:
            value = getattr(module, name)
            group = group_of(value)
            groups.setdefault(group, []).append(directive(f"{module.__name__}.{name}", value))
    lines = [INTRO]
    for group, entries in sorted(groups.items()):
        lines += [f"## {group[-1]}", "", "```{eval-rst}", *entries, "```", ""]
    return "\n".join(lines)


def group_of(value: object) -> tuple[int, str, str]:
    """Return the group of a name: its rank, its file, and its title.

    The title of functions is the first line of their file's docstring.
    """
    if inspect.isclass(value):
        return (3, "", "Errors") if issubclass(value, Exception) else (2, "", "Classes")
    module = value.__module__
    if module.startswith(VISION):
        return (1, VISION, "Networks for images")
    file = FIRST if module == ARGUMENTS else module
    title = (sys.modules[file].__doc__ or "").partition("\n")[0].rstrip(".")
    return (0 if file == FIRST else 1, file, title)


def directive(name: str, value: object) -> str:
    """Return the directive of autodoc for a name."""
    if not inspect.isclass(value):
        return f".. autofunction:: {name}\n"
    members = "" if issubclass(value, Exception) else "   :members:\n"
    return f".. autoclass:: {name}\n{members}"
