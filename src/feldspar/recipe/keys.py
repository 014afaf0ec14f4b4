"""Keys of a schema: sections that a field may hold, and keys that a section may hold."""

import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from feldspar.recipe.tree import get_value
from feldspar.recipe.yaml import KeyPath


def all_keys(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key below ``section`` by dotted name, with N for an index and NAME for a name."""
    for name, field in section.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key, field
        for inner, step in inner_sections(field.annotation):
            yield from all_keys(inner, f"{key}.{step}")


def inner_sections(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """Yield the sections inside a field, each with the key part that leads into it."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    elif origin is typing.Annotated:
        yield from inner_sections(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from inner_sections(argument)
    elif origin in (tuple, dict):
        part = "N." if origin is tuple else "NAME."
        for section, step in inner_sections(arguments[-1 if origin is dict else 0]):
            yield section, part + step


def known_keys(model: type[BaseModel], path: KeyPath, tree: Any) -> Iterator[str]:
    """Yield the keys that the section at ``path`` may hold."""
    annotation: Any = model
    for depth, part in enumerate(path):
        value = get_value(tree, path[: depth + 1])
        annotation = _member(annotation, part, value)
        if annotation is None:
            return
    for section, step in inner_sections(annotation):
        chosen = get_value(tree, path)
        if step:
            continue
        if _variant_matches(section, chosen):
            for name, field in section.model_fields.items():
                yield field.alias or name


def _member(annotation: Any, part: str | int, value: Any) -> Any:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _member(typing.get_args(annotation)[0], part, value)
    if origin in (tuple, list):
        return typing.get_args(annotation)[0]
    if origin is dict:
        return typing.get_args(annotation)[1]
    if origin in (typing.Union, types.UnionType):
        found = (_member(argument, part, value) for argument in typing.get_args(annotation))
        return next((member for member in found if member is not None), None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if part == (field.alias or name):
                return field.annotation
    return None


def _variant_matches(section: type[BaseModel], value: Any) -> bool:
    for name in ("type", "format"):
        field = section.model_fields.get(name)
        allowed = () if field is None else typing.get_args(field.annotation)
        if allowed and isinstance(value, dict) and value.get(name, allowed[0]) not in allowed:
            return False
    return True
