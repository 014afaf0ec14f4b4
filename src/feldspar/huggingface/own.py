"""Adapter to our own class, `FeldsparForCausalLM`, which expresses most shapes that we train.

The class's code, `feldspar.huggingface.remote`, is copied into the exported folder.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from feldspar.core.errors import UserError
from feldspar.core.files import write_atomically
from feldspar.huggingface.adapter import Adapter, ModelDescription
from feldspar.huggingface.declared import declared_parametrization
from feldspar.huggingface.layer_types import layer_types, window_of
from feldspar.huggingface.tensor_rules import TensorRule
from feldspar.model.rows import model_shapes
from feldspar.recipe.sections.block_parts import Biases, NormSettings, ReversibleSettings
from feldspar.recipe.sections.iso_flop import IsoFlopSettings
from feldspar.recipe.sections.model import (
    AlibiPositions,
    LearnedPositions,
    ModelSettings,
    NoPositions,
    Positions,
    RotaryPositions,
)
from feldspar.recipe.sections.position_scaling import NoScaling, PositionScaling

CODE = ("configuration_feldspar", "positions_feldspar", "layers_feldspar", "modeling_feldspar")
SAME_KEYS = (
    "query_key_norm",
    "branches",
    "embedding_norm",
    "attention_soft_cap",
    "logit_soft_cap",
)
"""Settings of the model whose keys in ``config.json`` have the same names."""
HEAD = "output.weight"
OWN = "FeldsparForCausalLM"


class OwnAdapter(Adapter):
    """Adapter that keeps our names, below ``model.``; the head is ``lm_head``."""

    model_type = "feldspar"
    hf_class = OWN
    prefix = "model."
    ignored = (r"lm_head\.weight",)

    def misfits(self, settings: ModelSettings, scaling: PositionScaling) -> list[str]:
        """Return nothing: the class expresses every shape and scaling."""
        return []

    def to_configuration(self, description: ModelDescription) -> dict[str, Any]:
        """Return the part of ``config.json`` on the shape and the scaling of positions."""
        settings, scaling = description.settings, description.scaling
        positions = settings.positions
        rotary = positions if isinstance(positions, RotaryPositions) else RotaryPositions()
        alibi = positions if isinstance(positions, AlibiPositions) else AlibiPositions()
        return layer_types(settings) | {
            "model_type": self.model_type,
            "architectures": [self.hf_class],
            "auto_map": {
                "AutoConfig": "configuration_feldspar.FeldsparConfig",
                "AutoModelForCausalLM": f"modeling_feldspar.{self.hf_class}",
            },
            "vocab_size": settings.vocab_size,
            "max_position_embeddings": settings.max_sequence_length,
            "hidden_size": settings.d_model,
            "num_hidden_layers": settings.n_layers,
            "num_attention_heads": settings.n_heads,
            "num_key_value_heads": settings.kv_heads,
            "head_dim": settings.head_width,
            "intermediate_size": settings.d_ff,
            "feed_forward": settings.feed_forward,
            "norm_type": settings.norm.type,
            "norm_epsilon": settings.norm.epsilon,
            "use_bias": settings.bias if isinstance(settings.bias, bool) else dict(settings.bias),
            "position_type": positions.type,
            "rotary_fraction": rotary.fraction,
            "rotary_base": rotary.base,
            "rotary_interleaved": rotary.interleaved,
            "alibi_max_exponent": alibi.max_exponent,
            "position_scaling": None
            if isinstance(scaling, NoScaling)
            else scaling.model_dump(mode="json"),
            "tie_word_embeddings": settings.tied_embeddings,
            **_later_keys(settings),
        }

    def from_configuration(self, configuration: Mapping[str, Any]) -> ModelDescription:
        """Return the description in a ``config.json`` that ``to_configuration`` wrote.

        A configuration without ``position_scaling`` means that positions are not scaled.
        """
        bias = configuration["use_bias"]
        settings = ModelSettings(
            n_layers=configuration["num_hidden_layers"],
            d_model=configuration["hidden_size"],
            n_heads=configuration["num_attention_heads"],
            n_kv_heads=configuration["num_key_value_heads"],
            head_dim=configuration["head_dim"],
            d_ff=configuration["intermediate_size"],
            vocab_size=configuration["vocab_size"],
            max_sequence_length=configuration["max_position_embeddings"],
            positions=_positions(configuration),
            feed_forward=configuration["feed_forward"],
            norm=NormSettings(
                type=configuration["norm_type"],
                epsilon=configuration["norm_epsilon"],
                place=configuration.get("norm_place", "before"),
                unit_offset=configuration.get("norm_unit_offset", False),
            ),
            bias=bias if isinstance(bias, bool) else Biases(**bias),
            tied_embeddings=configuration["tie_word_embeddings"],
            sliding_window=window_of(configuration),
            sparse_iso_flop=_iso_flop(configuration),
            reversible=_reversible(configuration),
            **{name: configuration[name] for name in SAME_KEYS if name in configuration},
        )
        found = configuration.get("position_scaling") or {"type": "none"}
        scaling = TypeAdapter[PositionScaling](PositionScaling).validate_python(found)
        parametrization = declared_parametrization(configuration, settings)
        return ModelDescription(settings, parametrization, scaling)

    def tensor_rules(self, settings: ModelSettings) -> tuple[TensorRule, ...]:
        """Return a rule for each tensor, which keeps its name."""
        names = [row.name for row in model_shapes(settings).rows]
        return tuple(
            TensorRule(name, ("lm_head.weight" if name == HEAD else self.prefix + name,))
            for name in names
        )


def _later_keys(settings: ModelSettings) -> dict[str, Any]:
    """Return the keys that a configuration has only where they differ from their default.

    Configurations of models without them stay as they were.
    """
    positions, found = settings.positions, {}
    if settings.norm.place != "before":
        found["norm_place"] = settings.norm.place
    if settings.norm.unit_offset:
        found["norm_unit_offset"] = True
    if isinstance(positions, RotaryPositions) and positions.window_base is not None:
        found["rotary_window_base"] = positions.window_base
    if isinstance(positions, RotaryPositions) and positions.layers_without:
        found["layers_without_positions"] = list(positions.layers_without)
    if isinstance(positions, AlibiPositions) and positions.slope_multiplier != 1.0:
        found["alibi_slope_multiplier"] = positions.slope_multiplier
    if isinstance(positions, AlibiPositions) and positions.rounded:
        found["alibi_rounded"] = True
    if settings.sparse_iso_flop is not None and settings.sparse_iso_flop.type != "wide":
        found["iso_flop"] = settings.sparse_iso_flop.model_dump(mode="json")
    if settings.reversible is not None:
        found["reversible"] = settings.reversible.model_dump(mode="json")
    values = {name: getattr(settings, name) for name in SAME_KEYS}
    defaults = {name: ModelSettings.model_fields[name].default for name in SAME_KEYS}
    return found | {name: value for name, value in values.items() if value != defaults[name]}


def write_code(folder: Path) -> None:
    """Copy the class's source files into ``folder``."""
    for name in CODE:
        text = files("feldspar.huggingface.remote").joinpath(f"{name}.py").read_text("utf-8")
        write_atomically(folder / f"{name}.py", text)


def _iso_flop(configuration: Mapping[str, Any]) -> IsoFlopSettings | None:
    found = configuration.get("iso_flop")
    return None if found is None else IsoFlopSettings.model_validate(found)


def _reversible(configuration: Mapping[str, Any]) -> ReversibleSettings | None:
    found = configuration.get("reversible")
    return None if found is None else ReversibleSettings.model_validate(found)


def _positions(configuration: Mapping[str, Any]) -> Positions:
    kind = configuration["position_type"]
    if kind == "rotary":
        return RotaryPositions(
            fraction=configuration["rotary_fraction"],
            base=configuration["rotary_base"],
            interleaved=configuration["rotary_interleaved"],
            window_base=configuration.get("rotary_window_base"),
            layers_without=tuple(configuration.get("layers_without_positions", ())),
        )
    if kind == "alibi":
        return AlibiPositions(
            max_exponent=configuration["alibi_max_exponent"],
            slope_multiplier=configuration.get("alibi_slope_multiplier", 1.0),
            rounded=configuration.get("alibi_rounded", False),
        )
    if kind == "learned":
        return LearnedPositions()
    if kind == "none":
        return NoPositions()
    raise UserError("config.json: position_type is not known", found=kind)
