"""The strict base of every section of a recipe, and variants chosen by ``type``."""

from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

LARGEST_COUNT = 10**12
"""More than any run has of anything that a whole number counts, except tokens (``Amount``)."""
Count = Annotated[int, Field(gt=0, le=LARGEST_COUNT)]
"""A whole number of things, at least 1; absurd ones are refused before anything is computed."""


class Settings(BaseModel):
    """A frozen section: unknown keys, loose types, NaN and infinity are refused."""

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
        """The ``type`` of a variant is described by what the variant is."""
        super().__pydantic_init_subclass__(**kwargs)
        field = cls.model_fields.get("type")
        if field is not None and field.description is None and cls.__doc__:
            (name, *_) = get_args(field.annotation)
            field.description = f"{name}: {' '.join(cls.__doc__.split())}"

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        """Return a frozen section holds tuples; strict validation takes no list for one."""
        if isinstance(value, dict):
            return {key: _frozen(item) for key, item in value.items()}
        return value


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _name_to_mapping(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


NameOrMapping = BeforeValidator(_name_to_mapping)
"""Lets a variant whose other keys are all default be written as its bare ``type`` name."""
