"""Explain a key of the recipe, or a word of the field, with the descriptions in the settings."""

import json

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from feldspar.core.errors import UserError, nearest
from feldspar.recipe.amounts import Amount
from feldspar.recipe.concepts import Keys, explain_concept, nearest_concepts
from feldspar.recipe.elsewhere import ELSEWHERE
from feldspar.recipe.keys import all_keys
from feldspar.recipe.root import Recipe
from feldspar.recipe.vision_root import VisionRecipe


def explain(key: str) -> list[str]:
    """Return lines that explain a key: description, default, and the keys below it.

    A word that is no key (``warmup``, ``parquet``) is explained by the keys that it is about.
    Raises UserError that names the nearest key, or the nearest words.
    """
    wanted = ".".join("N" if part.isdecimal() else part for part in key.split("."))
    wanted = wanted.removesuffix(".N")
    keys: dict[str, list[FieldInfo]] = {}
    for root in (Recipe, VisionRecipe):
        for name, field in all_keys(root):
            keys.setdefault(name, []).append(field)
    matches = [name for name in keys if _fits(name, wanted)]
    if not matches:
        if "." not in key and (lines := explain_concept(key, keys)):
            return lines
        raise _unknown(key, wanted, keys)
    lines = []
    for name in matches:
        for field in keys[name]:
            lines.append(f"{name}: {_one_line(field)}")
            if not field.is_required():
                lines.append(f"  default: {_default_text(field)}")
        direct = [other for other in keys if _is_directly_below(other, name)]
        lines.extend(f"  {key}: {_one_line(field)}" for key in direct for field in keys[key])
    return list(dict.fromkeys(lines))


def _unknown(key: str, wanted: str, keys: Keys) -> UserError:
    if wanted in ELSEWHERE:
        return UserError(f"{key}: no such key; {ELSEWHERE[wanted]}")
    hint = nearest(wanted, keys) if "." in key else None
    near = [repr(hint)] if hint else list(map(repr, nearest_concepts(key, keys)))
    return UserError(
        f"{key}: no such key" + (f"; did you mean {' or '.join(near)}?" if near else ""),
        do="list all keys: feldspar config schema",
    )


def _one_line(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _is_directly_below(key: str, holder: str) -> bool:
    if not key.startswith(f"{holder}."):
        return False
    *steps, _ = key[len(holder) + 1 :].split(".")
    return all(step in ("N", "NAME") for step in steps)


def _default_text(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json", by_alias=True)
    return str(default) if isinstance(default, Amount) else json.dumps(default)


def _fits(name: str, wanted: str) -> bool:
    parts, wanted_parts = name.split("."), wanted.split(".")
    return len(parts) == len(wanted_parts) and all(
        part in (given, "NAME") for part, given in zip(parts, wanted_parts, strict=True)
    )
