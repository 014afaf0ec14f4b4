"""Keys that every recipe has: name, seed, choices."""

from collections.abc import Collection, Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.base import Settings

PositionUnit = Literal["tokens", "images"]


class RecipeTop(Settings):
    """Keys that recipes of language models and of vision models share."""

    position_unit: ClassVar[PositionUnit]
    """Unit of positions in a run."""

    schema_version: Literal[1]
    """Version of this schema."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the run; `train` writes to runs/NAME unless --out is given."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of all random streams."""
    description: str = ""
    """One or two lines for people."""
    choices: dict[str, dict[str, dict[str, Any]]] = {}
    """Named sets of overrides: choices.size.111M holds dotted keys and their values."""
    choose: dict[str, str] = {}
    """Chosen option of each choice."""


def refuse_units(recipe: BaseModel, refused: Collection[Unit]) -> None:
    """Raise ValueError, with the key, for an amount in one of the ``refused`` units."""
    for key, amount in _amounts(recipe, ""):
        if amount.unit in refused:
            allowed = [unit.value for unit in Unit if unit not in refused]
            raise ValueError(
                f"{key}: {amount} has a unit that this recipe does not use (allowed: "
                f"{', '.join(allowed)})"
            )


def _amounts(value: Any, key: str) -> Iterator[tuple[str, Amount]]:
    if isinstance(value, Amount):
        yield key, value
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            part = field.alias or name
            yield from _amounts(getattr(value, name), f"{key}.{part}" if key else part)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _amounts(item, f"{key}.{index}")
