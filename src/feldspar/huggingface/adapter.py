"""The interface of an adapter between our decoder and a Hugging Face class."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.recipe.sections.model import ModelSettings, PositionScaling


class Adapter(Protocol):
    """Converts a configuration and tensors, there and back."""

    model_type: str
    hf_class: str

    def misfits(self, settings: ModelSettings, scaling: PositionScaling) -> list[str]:
        """List the settings that the class would need; empty when it can express them."""
        ...

    def to_configuration(self, settings: ModelSettings, scaling: PositionScaling) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        ...

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelSettings:
        """Return our settings. Raises UserError for what we do not compute."""
        ...

    def scaling_of(self, configuration: Mapping[str, Any]) -> PositionScaling:
        """Return the scaling of positions. Raises UserError for what we do not compute."""
        ...

    def to_hf(self, state: Mapping[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
        """Return our tensors under the class's names, in its layout."""
        ...

    def from_hf(self, state: Mapping[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
        """Return the class's tensors under our names; unknown tensors keep their names."""
        ...


def require_values(configuration: Mapping[str, Any], allowed: Mapping[str, tuple]) -> None:
    """Raise UserError when a key is present with a value that we would compute differently."""
    for key, values in allowed.items():
        if key in configuration and configuration[key] not in values:
            raise UserError(
                f"config.json: {key} is not supported with this value",
                found=repr(configuration[key]),
                allowed=", ".join(map(repr, values)),
            )
