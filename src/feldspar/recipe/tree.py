"""Nested plain values with dotted keys: merge a parent, set a value, find its origin."""

from typing import Any

from feldspar.core.errors import UserError
from feldspar.recipe.yaml import KeyPath

Origins = dict[KeyPath, str]


def dotted(path: KeyPath) -> str:
    """Return a path in the form of an override's key."""
    return ".".join(map(str, path))


def split_key(key: str) -> KeyPath:
    """Return a dotted key as a path; digits are indices of a list."""
    parts = key.split(".")
    if not all(parts):
        raise UserError(f"{key!r} is not a key", allowed="names and list indices joined by dots")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def merge(parent: Any, child: Any) -> Any:
    """Return ``parent`` with ``child`` merged in: mappings key by key, all else replaced."""
    if isinstance(parent, dict) and isinstance(child, dict):
        merged = dict(parent)
        for key, value in child.items():
            merged[key] = merge(parent[key], value) if key in parent else value
        return merged
    return child


def set_value(tree: Any, path: KeyPath, value: Any) -> Any:
    """Return a copy of ``tree`` with ``value`` at ``path``; missing mappings are added.

    Raises UserError for an index outside a list.
    """
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(tree, list):
        if not isinstance(head, int) or head >= len(tree):
            raise UserError(
                f"{head!r} is not an index of a list of {len(tree)}",
                allowed=f"0 to {len(tree) - 1}",
            )
        return [set_value(item, rest, value) if i == head else item for i, item in enumerate(tree)]
    if isinstance(tree, str):
        tree = {"type": tree}
    mapping = tree if isinstance(tree, dict) else {}
    key = str(head)
    return mapping | {key: set_value(mapping.get(key), rest, value)}


def get_value(tree: Any, path: KeyPath) -> Any:
    """Return the value at ``path``, or None."""
    for part in path:
        if isinstance(tree, dict):
            tree = tree.get(str(part))
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            tree = tree[part]
        else:
            return None
    return tree


def replace_origin(origins: Origins, path: KeyPath, origin: str) -> Origins:
    """Return ``origins`` after the value at ``path`` was replaced."""
    kept = {key: value for key, value in origins.items() if key[: len(path)] != path}
    return kept | {path: origin}


def origin_of(origins: Origins, path: KeyPath) -> str:
    """Return the origin of the value at ``path``: its own, else that of what contains it or of a
    part."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    inside = (origin for key, origin in origins.items() if key[: len(path)] == path)
    return next(inside, "default")
