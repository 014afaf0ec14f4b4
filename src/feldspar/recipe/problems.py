"""What is wrong with a recipe, each problem with its key, its line and the nearest valid key."""

import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from feldspar.core.errors import UserError, nearest, shorten
from feldspar.recipe.tree import Origins, dotted, get_value, origin_of
from feldspar.recipe.yaml import KeyPath


class RecipeError(UserError):
    """All problems of a recipe at once: the first one as the error's own line."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        (what, where), *others = problems
        super().__init__(what, where=where)
        self.others = others

    def __str__(self) -> str:
        lines = [super().__str__(), *(f"also: {what} ({where})" for what, where in self.others)]
        return "\n".join(lines)


def recipe_error(
    error: ValidationError, model: type[BaseModel], tree: Any, origins: Origins
) -> RecipeError:
    """The problems that validation found, in the words of the recipe."""
    problems = []
    for detail in error.errors(include_url=False):
        path = _path_in_file(detail["loc"], tree)
        message = _message(detail, path, model, tree)
        key = _key_named_in(message) or path
        problem = (message, origin_of(origins, key))
        if problem not in problems:
            problems.append(problem)
    return RecipeError(problems)


def _path_in_file(location: tuple[str | int, ...], tree: Any) -> KeyPath:
    """Drop the parts that name a chosen variant or union member rather than a key."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        holder = get_value(tree, tuple(path))
        if isinstance(holder, dict) and (str(part) in holder or is_last):
            path.append(str(part))
        elif isinstance(holder, list) and isinstance(part, int):
            path.append(part)
        elif is_last and isinstance(part, str) and not isinstance(holder, dict | list):
            continue
    return tuple(path)


def _message(detail: Any, path: KeyPath, model: type[BaseModel], tree: Any) -> str:
    key = dotted(path)
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path, model, tree)
    if kind == "missing":
        return f"{key}: this key is required"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = context.get("expected_tags", "")
        found = context.get("tag")
        hint = nearest(str(found), [tag.strip(" '") for tag in tags.split(",")]) if found else None
        suffix = f"; did you mean {hint!r}?" if hint else ""
        start = f"{key}.type: unknown type {found!r}" if found else f"{key}: needs a type"
        return f"{start}{suffix} (types: {tags})" if tags else start
    if kind == "value_error":
        text = str(context.get("error", detail["msg"]))
        if isinstance(context.get("error"), UserError):
            text = context["error"].what
        prefix = f"{key}." if key and _starts_with_field(text) else f"{key}: " if key else ""
        return f"{prefix}{text}"
    found = "" if isinstance(detail["input"], dict | list) else f", found {detail['input']!r}"
    text = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{key}: {shorten(text, 160)}{shorten(found)}"


def _unknown_key(path: KeyPath, model: type[BaseModel], tree: Any) -> str:
    siblings = set(known_keys(model, path[:-1], tree))
    name = str(path[-1])
    hint = nearest(name, siblings)
    if hint is not None:
        return f"{dotted(path)}: unknown key; did you mean {dotted((*path[:-1], hint))!r}?"
    owners = [dotted(owner) for owner in _owners(model, name)]
    if owners:
        return f"{dotted(path)}: unknown key here; it belongs to {', '.join(owners)!r}"
    return f"{dotted(path)}: unknown key (keys here: {', '.join(sorted(siblings))})"


def known_keys(model: type[BaseModel], path: KeyPath, tree: Any) -> Iterator[str]:
    """The keys that the section at ``path`` may hold."""
    annotation: Any = model
    for depth, part in enumerate(path):
        value = get_value(tree, path[: depth + 1])
        annotation = _member(annotation, part, value)
        if annotation is None:
            return
    for section in sections_of(annotation):
        chosen = get_value(tree, path)
        if _variant_matches(section, chosen):
            for name, field in section.model_fields.items():
                yield field.alias or name


def sections_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings classes that a field's annotation admits."""
    origin = typing.get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif origin is typing.Annotated:
        yield from sections_of(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from sections_of(argument)


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
    field = section.model_fields.get("type")
    if field is None or not isinstance(value, dict) or "type" not in value:
        return True
    return value["type"] in typing.get_args(field.annotation)


def _owners(model: type[BaseModel], name: str) -> list[KeyPath]:
    owners: list[KeyPath] = []
    for key, field in model.model_fields.items():
        for section in sections_of(field.annotation):
            if any(name == (inner.alias or inner_name)
                   for inner_name, inner in section.model_fields.items()):
                owners.append((key, name))
    return list(dict.fromkeys(owners))


def _starts_with_field(text: str) -> bool:
    head = text.split(":", 1)[0]
    return ":" in text and head.replace(".", "").replace("_", "").isalnum()


def _key_named_in(message: str) -> KeyPath | None:
    head = message.split(":", 1)[0]
    if not head or " " in head:
        return None
    return tuple(int(part) if part.isdigit() else part for part in head.split("."))
