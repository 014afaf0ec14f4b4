"""What a key of the recipe means, from the settings' own descriptions."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from feldspar.core.errors import UserError, nearest
from feldspar.recipe.problems import sections_of
from feldspar.recipe.root import Recipe


def all_keys() -> dict[str, FieldInfo]:
    """Every key of the schema by dotted name; ``N`` stands for a list's index."""
    return dict(_keys_of(Recipe, ""))


def explain(key: str) -> list[str]:
    """Lines that say what a key means: description, default, and the keys below it.

    Raises UserError that names the nearest key.
    """
    wanted = ".".join("N" if part.isdigit() else part for part in key.split("."))
    keys = all_keys()
    matches = [name for name in keys if _fits(name, wanted)]
    if not matches:
        hint = nearest(wanted, keys)
        raise UserError(
            f"{key}: no such key" + (f"; did you mean {hint!r}?" if hint else ""),
            do="feldspar config schema prints all of them",
        )
    lines = []
    for name in matches:
        field = keys[name]
        lines.append(f"{name}: {field.description or ''}")
        if not field.is_required():
            lines.append(f"  default: {_default_text(field)}")
        below = [other for other in keys if other.startswith(f"{name}.")]
        direct = [other for other in below if "." not in other[len(name) + 1 :].replace("N.", "")]
        lines.extend(f"  {other}: {keys[other].description or ''}" for other in direct)
    return lines


def _default_text(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    return repr(default.model_dump(mode="json")) if isinstance(default, BaseModel) else str(default)


def _fits(name: str, wanted: str) -> bool:
    parts, wanted_parts = name.split("."), wanted.split(".")
    return len(parts) == len(wanted_parts) and all(
        part in (given, "NAME") for part, given in zip(parts, wanted_parts, strict=True)
    )


def _keys_of(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key, field
        for inner, step in _inner_sections(field.annotation):
            yield from _keys_of(inner, f"{key}.{step}")


def _inner_sections(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    for section in sections_of(annotation):
        yield section, ""
    for argument in getattr(annotation, "__args__", ()):
        origin = getattr(argument, "__origin__", None)
        yield from _collections(argument if origin in (tuple, dict) else None)
    yield from _collections(annotation)


def _collections(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    origin = getattr(annotation, "__origin__", None)
    if origin is tuple:
        for section in sections_of(annotation.__args__[0]):
            yield section, "N."
    elif origin is dict:
        for section in sections_of(annotation.__args__[1]):
            yield section, "NAME."
