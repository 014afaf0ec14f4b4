"""The differences between two nested values of JSON, by dotted key."""

from typing import Any

from feldspar.core.errors import shorten

SHOWN_CHARACTERS = 60


def differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """List the dotted keys under which two plain values differ, with both values.

    Of lists of a recipe's phases of different lengths the shared ones are compared.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for name in {**old, **new}:
            inner = f"{key}.{name}" if key else str(name)
            found += differences(old.get(name), new.get(name), inner)
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            difference
            for index, (a, b) in enumerate(zip(old, new, strict=True))
            for difference in differences(a, b, f"{key}.{index}")
        ]
    if isinstance(old, list) and isinstance(new, list) and key == "phases":
        shared = min(len(old), len(new))
        return differences(old[:shared], new[:shared], key) + [
            (f"{key}.{index}", "absent", "added") for index in range(len(old), len(new))
        ]
    return [] if old == new else [(key, old, new)]


def difference_line(found: tuple[str, Any, Any]) -> str:
    """Write one difference as ``key: old -> new``."""
    key, old, new = found
    return f"{key}: {shorten(str(old), SHOWN_CHARACTERS)} -> {shorten(str(new), SHOWN_CHARACTERS)}"
