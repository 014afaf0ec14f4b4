"""Base class of every section of a recipe, and of variants that ``type`` chooses."""

from collections.abc import Iterable
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_validator,
)

LARGEST_COUNT = 10**12
"""Largest count in a recipe. No run has more of anything except tokens, which are an ``Amount``."""
Count = Annotated[int, Field(gt=0, le=LARGEST_COUNT)]
"""A whole number of at least 1; absurd numbers are refused before anything is computed."""


class Settings(BaseModel):
    """A frozen section. It refuses unknown keys, loose types, NaN and infinity."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Describe the key ``type`` of a variant by the docstring of the variant."""
        super().__pydantic_init_subclass__(**kwargs)
        field = cls.model_fields.get("type")
        if field is not None and field.description is None and cls.__doc__:
            (name, *_) = get_args(field.annotation)
            field.description = f"{name}: {' '.join(cls.__doc__.split())}"

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        """Turn lists into tuples: a frozen section holds tuples, and strict validation takes no
        lists."""
        if isinstance(value, dict):
            return {key: _frozen(item) for key, item in value.items()}
        return value


def without_defaults(
    settings: BaseModel, handler: SerializerFunctionWrapHandler, names: Iterable[str]
) -> dict[str, Any]:
    """Serialise, and leave out the fields of ``names`` that have their default.

    Recipes written before these fields existed then keep their digests.
    """
    values = handler(settings)
    fields = type(settings).model_fields
    for name in names:
        if getattr(settings, name) == fields[name].default:
            values.pop(name, None)
    return values


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _name_to_mapping(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


NameOrMapping = BeforeValidator(_name_to_mapping)
"""Allow a variant to be written as its bare ``type`` name, if its other keys have defaults."""
