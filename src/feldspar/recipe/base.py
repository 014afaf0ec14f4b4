"""The strict base of every section of a recipe."""

from pydantic import BaseModel, ConfigDict


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
