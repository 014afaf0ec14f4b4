"""The strict base of every section of a recipe, and variants chosen by ``type``."""

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


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


def _name_to_mapping(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


NameOrMapping = BeforeValidator(_name_to_mapping)
"""Lets a variant whose other keys are all default be written as its bare ``type`` name."""
