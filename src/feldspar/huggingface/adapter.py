"""The interface of an adapter between our decoder and a Hugging Face class.

An adapter is declarative: it describes configurations as settings, and tensors by a table of rules
(``tensor_rules``), each used both ways. Everything else (reading, checks, conversion of
multipliers, writing) is done once for all adapters, by ``import_folder`` and ``export_folder``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ValidationError

from feldspar.core.errors import UserError
from feldspar.huggingface.tensor_rules import TensorRule
from feldspar.model.rows import model_shapes
from feldspar.parametrization.tables import ForwardMultipliers, forward_multipliers
from feldspar.recipe.base import Settings
from feldspar.recipe.sections.block_parts import SlidingWindow
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.recipe.sections.position_scaling import NoScaling, PositionScaling

LEARNING_RATE = 1e-3
"""The learning rate in the description of a foreign model. No configuration says which one suits,
and no logits depend on it: a recipe that trains the model sets its own."""
STANDARD = ParametrizationSettings(learning_rate=LEARNING_RATE)
NO_SCALING = NoScaling()
SPELLED_ABSENT = {"model.reversible": "false"}
"""Values by which a recipe says that there is none of something, where that is not null."""


@dataclass(frozen=True)
class ModelDescription:
    """A model without its weights: all that its logits depend on beside them."""

    settings: ModelSettings
    parametrization: ParametrizationSettings = STANDARD
    """The parametrization; its multipliers are those of the forward pass."""
    scaling: PositionScaling = NO_SCALING
    """The scaling of positions."""

    @property
    def forward(self) -> ForwardMultipliers:
        """The multipliers of the forward pass."""
        return forward_multipliers(self.parametrization, model_shapes(self.settings))


class Adapter(ABC):
    """Converts a configuration, and names and layouts of tensors, there and back."""

    model_type: ClassVar[str]
    """The key ``model_type`` of the class's ``config.json``."""
    hf_class: ClassVar[str]
    prefix: ClassVar[str] = ""
    """A prefix of the class's names that some folders leave out, like ``transformer.``"""
    ignored: ClassVar[tuple[str, ...]] = ()
    """Regular expressions of tensors (without the prefix) that a folder may hold and that the model
    does not need, such as masks, frequencies, or the copy of a tied head."""

    biases_in_weight_type: ClassVar[bool] = False
    """True if the class computes ALiBi's biases of whole positions in the type of the weights."""
    always_ties: ClassVar[bool] = False
    """True if the class ties its head whatever head a folder holds. Transformers' own classes keep
    a head that is not the copy of the embedding."""

    @abstractmethod
    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description of a ``config.json``.

        Raises UserError for a value that we would compute differently. A missing key may raise
        KeyError, and a value of a wrong type ValidationError, TypeError or ValueError: the caller
        names the file.
        """

    @abstractmethod
    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` that describes the model.

        The function accepts every description and leaves out what the class cannot express;
        ``misfits`` then finds the difference.
        """

    @abstractmethod
    def tensor_rules(self, settings: ModelSettings) -> tuple[TensorRule, ...]:
        """Return a rule for each tensor of our decoder; a tied head has none."""

    def kept_parametrization(self, description: ModelDescription) -> ParametrizationSettings:
        """Return the parametrization with the multipliers that the class itself applies.

        ``to_configuration`` is called with it, and all other multipliers are folded into the
        weights. By default the class has no multipliers.
        """
        return STANDARD

    def misfits(self, settings: ModelSettings, scaling: PositionScaling) -> list[str]:
        """List the settings that the class cannot express; empty where it expresses all of them.

        These are the settings that differ after the way into a configuration and back. Dropout,
        which no logits depend on, is not among them.
        """
        wanted = ModelDescription(settings, scaling=scaling)
        try:
            found = self.from_configuration(self.to_configuration(wanted))
        except (UserError, ValidationError) as error:
            return [str(error)]
        return [*_differences(settings, found.settings), *_scaling_difference(wanted, found)]


def _differences(wanted: ModelSettings, found: ModelSettings) -> list[str]:
    one, other = _meanings(wanted), _meanings(found)
    return [_need(f"model.{n}", one[n], other[n]) for n in one if one[n] != other[n]]


def _scaling_difference(wanted: ModelDescription, found: ModelDescription) -> list[str]:
    if wanted.scaling == found.scaling:
        return []
    return [_need("position_scaling", wanted.scaling, found.scaling)]


def _meanings(settings: ModelSettings) -> dict[str, Any]:
    """Return values by setting; settings that are written in two ways have one value."""
    values: dict[str, Any] = {n: getattr(settings, n) for n in ModelSettings.model_fields}
    del values["dropout"]
    biases, window = settings.biases, settings.sliding_window
    if settings.sparse_iso_flop is not None and settings.sparse_iso_flop.type == "wide":
        values["sparse_iso_flop"] = None  # its widths are in other settings already
    if settings.norm.type == "rms":
        biases = biases.model_copy(update={"norm": False})
    if window is not None:
        full = tuple(layer for layer in range(settings.n_layers) if window.is_full(layer))
        window = SlidingWindow(tokens=window.tokens, full_layers=full)
    return values | {
        "n_kv_heads": settings.kv_heads,
        "head_dim": settings.head_width,
        "bias": biases,
        "sliding_window": window,
    }


def _need(key: str, wanted: Any, found: Any) -> str:
    """Describe the value of a setting that a class has instead of the wanted one."""
    if isinstance(found, Settings) and type(found) is type(wanted):
        pairs = [(name, getattr(found, name)) for name in type(found).model_fields]
        changed = [(name, value) for name, value in pairs if value != getattr(wanted, name)]
        return " and ".join(f"{key}.{name}: {_value(value)}" for name, value in changed)
    if found is None:
        return f"{key}: {SPELLED_ABSENT.get(key, 'null')}"
    return f"{key}: {getattr(found, 'type', None) or _value(found)}"


def _value(value: Any) -> str:
    """Return a value as a recipe spells it."""
    if isinstance(value, Settings):
        return value.model_dump_json(exclude_none=True)
    if isinstance(value, tuple):
        return str(list(value))
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def require_values(configuration: Mapping[str, Any], allowed: Mapping[str, tuple]) -> None:
    """Raise UserError when a key is present with a value that we would compute differently."""
    for key, values in allowed.items():
        if key in configuration and configuration[key] not in values:
            raise UserError(
                f"config.json: {key} is not supported with this value",
                found=repr(configuration[key]),
                allowed=", ".join(map(repr, values)),
            )
