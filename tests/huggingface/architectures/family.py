"""The small configurations that an architecture is tested with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

Configuration = dict[str, Any]


def older_form(configuration: Configuration) -> Configuration:
    """Return a ``config.json`` with the rotary keys that transformers wrote before version 5."""
    older = dict(configuration)
    rope = dict(older.pop("rope_parameters", None) or {})
    if not rope:
        return older
    older["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        older["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    rope["type"] = rope.pop("rope_type")
    if rope["type"] != "default":
        older["rope_scaling"] = rope
    return older


@dataclass(frozen=True)
class Family:
    """An architecture's configurations, as keyword arguments of its class in transformers.

    The models are tiny, so that a test takes milliseconds: two or three layers, a vocabulary of 48
    tokens, and at least 16 positions where they are not scaled.
    """

    model_type: str
    configuration: Configuration
    """The keys that all variants share."""
    variants: Mapping[str, Configuration]
    """Further keys of each variant; they replace those of ``configuration``."""
    refused: Mapping[str, tuple[Configuration, str]] = field(default_factory=dict)
    """Keys of a ``config.json`` that import must refuse, with a pattern of the error."""
    mean_gain: float = 1.0
    """The mean of the weights of norms; 0 where the class adds 1 to them."""
    attention: str = "eager"
    """The implementation of attention in transformers."""
    saved_names: Mapping[str, str] = field(default_factory=dict)
    """Names of parameters in a folder, where they differ from those of the class."""
    older: Callable[[Configuration], Configuration] = older_form
    """Turns a ``config.json`` into the form that older versions of transformers wrote."""


def all_families() -> dict[str, Family]:
    """Return the families by the name of their adapter, in alphabetical order."""
    names = sorted(path.stem for path in (Path(__file__).parent / "families").glob("[a-z]*.py"))
    folder = f"{__package__}.families"
    return {name: import_module(f"{folder}.{name}").FAMILY for name in names}
