"""The page of the Python API: every name that ``feldspar`` offers, from its docstring."""

import inspect
import sys

import feldspar
import feldspar.vision

INTRO = """# Python API
What `import feldspar` offers. [From Python and notebooks](../python.md) shows it in use.
"""
VISION = "feldspar.vision"
MOVED = {"feldspar.api.arguments": "feldspar.api.recipes"}
"""Files whose functions stand among those of another."""


def python_page() -> str:
    """Return the page: the names of each file under what its docstring says the file is for."""
    groups: dict[tuple[bool, str, str], list[str]] = {}
    for module in (feldspar, feldspar.vision):
        for name in module.__all__:
            value = getattr(module, name)
            group = group_of(value)
            groups.setdefault(group, []).append(directive(f"{module.__name__}.{name}", value))
    lines = [INTRO]
    for group, entries in sorted(groups.items()):
        lines += [f"## {group[-1]}", "", "```{eval-rst}", *entries, "```", ""]
    return "\n".join(lines)


def group_of(value: object) -> tuple[bool, str, str]:
    """Return the group of a name, which ends with its title; functions come first, by their files.

    The title is the first line of the file's docstring.
    """
    if inspect.isclass(value):
        title = "Errors" if issubclass(value, Exception) else "Classes"
        return (True, title, title)
    module = sys.modules[MOVED.get(value.__module__, value.__module__)]
    if module.__name__.startswith(VISION):
        return (False, VISION, "Networks for images")
    return (False, module.__name__, (module.__doc__ or "").partition("\n")[0].rstrip("."))


def directive(name: str, value: object) -> str:
    """Return the directive of autodoc for a name."""
    if not inspect.isclass(value):
        return f".. autofunction:: {name}\n"
    members = "" if issubclass(value, Exception) else "   :members:\n"
    return f".. autoclass:: {name}\n{members}"
