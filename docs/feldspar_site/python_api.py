"""The page of the Python API: every name that ``feldspar`` offers, from its docstring."""

import inspect
import sys

import feldspar
import feldspar.vision

INTRO = """# Python API
What `import feldspar` offers. [From Python and notebooks](../python.md) shows it in use.
"""
LAST = ("Classes", "Errors")
"""Groups after those of functions."""


def python_page() -> str:
    """Return the page: the names of each file under what its docstring says the file is for."""
    groups: dict[str, list[str]] = {}
    for name in feldspar.__all__:
        value = getattr(feldspar, name)
        groups.setdefault(heading(value), []).append(directive(f"feldspar.{name}", value))
    for name in feldspar.vision.__all__:
        value = getattr(feldspar.vision, name)
        entry = directive(f"feldspar.vision.{name}", value)
        groups.setdefault("Networks for images", []).append(entry)
    lines = [INTRO]
    for title in sorted(groups, key=lambda title: title in LAST):
        entries = groups[title]
        lines += [f"## {title}", "", "```{eval-rst}", *entries, "```", ""]
    return "\n".join(lines)


def heading(value: object) -> str:
    """Return the heading under which a name stands."""
    if inspect.isclass(value):
        return LAST[issubclass(value, Exception)]
    module = sys.modules[value.__module__]
    return (module.__doc__ or "").partition("\n")[0].rstrip(".")


def directive(name: str, value: object) -> str:
    """Return the directive of autodoc for a name."""
    if not inspect.isclass(value):
        return f".. autofunction:: {name}\n"
    members = "" if issubclass(value, Exception) else "   :members:\n"
    return f".. autoclass:: {name}\n{members}"
