"""Turn validation errors into problems of a recipe, with key, line and nearest valid key."""

from typing import Any

from pydantic import BaseModel, ValidationError

from feldspar.core.errors import UserError, nearest, shorten
from feldspar.recipe.elsewhere import ELSEWHERE
from feldspar.recipe.keys import all_keys, known_keys
from feldspar.recipe.tree import Origins, dotted, get_value, origin_of
from feldspar.recipe.yaml import KeyPath

_URGENCY = {"extra_forbidden": 0, "value_error": 0, "missing": 2}
"""Order of problems. A misspelt key comes before the key that is missing because of it; our own
messages come first."""


class RecipeError(UserError):
    """All problems of a recipe; the first one is the error's own message."""

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
    """Return the problems that validation found, in terms of the recipe's keys."""
    details = [
        (_path_in_file(detail["loc"], tree, detail["type"] == "missing"), detail)
        for detail in error.errors(include_url=False)
    ]
    details.sort(key=lambda pair: _URGENCY.get(pair[1]["type"], 1))
    problems = []
    for path, detail in details:
        if any(len(other) > len(path) and other[: len(path)] == path for other, _ in details):
            continue  # the problem inside it is more exact
        message = _message(detail, path, model, tree)
        key = key_named_in(message) or path
        holder = key[:-1] if detail["type"] == "missing" else key
        problem = (message, origin_of(origins, holder))
        if problem not in problems:
            problems.append(problem)
    return RecipeError(problems)


def _path_in_file(location: tuple[str | int, ...], tree: Any, missing: bool) -> KeyPath:
    """Drop the parts that name a chosen variant or union member rather than a key.

    The last part of a ``missing`` key is absent from the tree, yet a key.
    """
    path: list[str | int] = []
    for index, part in enumerate(location):
        absent = missing and index == len(location) - 1
        holder = get_value(tree, tuple(path))
        if isinstance(holder, dict) and (str(part) in holder or absent):
            path.append(str(part))
        elif isinstance(holder, list) and isinstance(part, int):
            path.append(part)
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
        name = context.get("discriminator", "type").strip("'")
        start = f"{key}.{name}: unknown {name} {found!r}" if found else f"{key}: needs a {name}"
        return f"{start}{suffix} ({name}s: {tags})" if tags else start
    if kind == "value_error":
        text = str(context.get("error", detail["msg"]))
        if isinstance(context.get("error"), UserError):
            known = context["error"].allowed
            text = context["error"].what + (f" (allowed: {known})" if known else "")
        prefix = f"{key}." if key and _starts_with_field(text) else f"{key}: " if key else ""
        return f"{prefix}{text}"
    found = (
        "" if isinstance(detail["input"], dict | list | tuple) else f", found {detail['input']!r}"
    )
    text = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{key}: {shorten(text, 160)}{shorten(found)}"


def _unknown_key(path: KeyPath, model: type[BaseModel], tree: Any) -> str:
    siblings = set(known_keys(model, path[:-1], tree))
    name = str(path[-1])
    place = tuple("N" if isinstance(part, int) else part for part in path)
    if dotted(place) in ELSEWHERE:
        return f"{dotted(path)}: unknown key; {ELSEWHERE[dotted(place)]}"
    known = dict.fromkeys(key for key, _ in all_keys(model))
    owners = [key for key in known if key.rpartition(".")[2] == name]
    # A key of another variant of the same section is not misplaced.
    if owners and dotted(place) not in known:
        return f"{dotted(path)}: unknown key here; it belongs at {' or '.join(owners[:3])}"
    hint = nearest(name, siblings)
    if hint is not None:
        return f"{dotted(path)}: unknown key; did you mean {dotted((*path[:-1], hint))!r}?"
    return f"{dotted(path)}: unknown key (keys here: {', '.join(sorted(siblings))})"


def _starts_with_field(text: str) -> bool:
    head = text.split(":", 1)[0]
    return ":" in text and head.replace(".", "").replace("_", "").isalnum()


def key_named_in(message: str) -> KeyPath | None:
    """Return the key that an error message begins with, or None."""
    head = message.split(":", 1)[0]
    if not head or " " in head or head.startswith("-"):  # an option of the command line
        return None
    return tuple(int(part) if part.isdecimal() else part for part in head.split("."))
