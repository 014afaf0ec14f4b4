"""What a key of the recipe means, from the settings' own descriptions."""

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from feldspar.core.errors import UserError, nearest
from feldspar.recipe.keys import all_keys
from feldspar.recipe.root import Recipe


def explain(key: str) -> list[str]:
    """Lines that say what a key means: description, default, and the keys below it.

    Raises UserError that names the nearest key.
    """
    wanted = ".".join("N" if part.isdigit() else part for part in key.split("."))
    keys = dict(all_keys(Recipe))
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
