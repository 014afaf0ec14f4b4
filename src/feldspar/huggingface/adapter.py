"""What an adapter between our decoder and a Hugging Face class offers."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.recipe.sections.model import ModelSettings, PositionScaling


class Adapter(Protocol):
    """Configuration and tensors, there and back."""

    model_type: str
    hf_class: str

    def misfits(self, settings: ModelSettings, scaling: PositionScaling) -> list[str]:
        """Why the class cannot express ``settings`` so scaled; empty when it can."""
        ...

    def to_configuration(self, settings: ModelSettings, scaling: PositionScaling) -> dict[str, Any]:
        """The content of ``config.json`` that describes the shape and the scaling of positions."""
        ...

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelSettings:
        """Our settings. Raises UserError for what we do not compute."""
        ...

    def scaling_of(self, configuration: Mapping[str, Any]) -> PositionScaling:
        """How the positions are scaled. Raises UserError for what we do not compute."""
        ...

    def to_hf(self, state: Mapping[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
        """Our tensors under their names, in their layout."""
        ...

    def from_hf(self, state: Mapping[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
        """Their tensors under our names; what has no name of ours is passed on."""
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
