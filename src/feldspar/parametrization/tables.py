"""The parametrization table: a pure function of settings and shapes.

Per tensor: initial standard deviation and multipliers of learning rate, weight decay and epsilon;
for the whole network: four forward multipliers. ``sp`` is the standard parametrization; ``mup`` the
maximal update parametrization (2203.03466) with the rules of Cerebras-GPT (2304.03208) and BTLM
(2309.11568).
"""

import math
from dataclasses import dataclass

from feldspar.core.rows import FanIn, ModelShapes, ParameterRow, Role
from feldspar.parametrization.settings import ParametrizationSettings

WIDTH_SCALED_ROLES = frozenset({Role.HIDDEN})


@dataclass(frozen=True)
class ForwardMultipliers:
    """Factors in the forward pass: embedding sum, residual branch, attention logits, logits."""

    embedding: float
    residual: float
    attention: float
    output: float


@dataclass(frozen=True)
class TensorEntry:
    """What the table says of one tensor; multipliers apply to the base hyper-parameters."""

    name: str
    role: Role
    shape: tuple[int, ...]
    init_std: float
    initial_mean: float
    learning_rate_multiplier: float
    weight_decay_multiplier: float
    epsilon_multiplier: float


@dataclass(frozen=True)
class ParametrizationTable:
    """All entries of a model, in the order of its rows."""

    type: str
    init: str
    learning_rate: float
    forward: ForwardMultipliers
    tensors: tuple[TensorEntry, ...]

    def entry(self, name: str) -> TensorEntry:
        """The entry of one tensor."""
        return next(entry for entry in self.tensors if entry.name == name)


def table(settings: ParametrizationSettings, shapes: ModelShapes) -> ParametrizationTable:
    """The table of a model."""
    return ParametrizationTable(
        settings.type,
        settings.init,
        settings.learning_rate,
        forward_multipliers(settings, shapes),
        tuple(_entry(settings, shapes, row) for row in shapes.rows),
    )


def forward_multipliers(
    settings: ParametrizationSettings, shapes: ModelShapes
) -> ForwardMultipliers:
    """The four factors of the forward pass."""
    if settings.type == "sp":
        return ForwardMultipliers(1.0, 1.0, 1 / math.sqrt(shapes.head_dim), 1.0)
    return ForwardMultipliers(
        embedding=settings.embedding_multiplier,
        residual=1.0,
        attention=settings.attention_multiplier / shapes.head_dim,
        output=settings.output_multiplier / _width_multiplier(settings, shapes, FanIn.D_MODEL),
    )


def _width_multiplier(
    settings: ParametrizationSettings, shapes: ModelShapes, fan_in: FanIn
) -> float:
    """How many times wider the model is than the base, in the dimension a matrix sums over."""
    if settings.type == "sp":
        return 1.0
    assert settings.base_d_model is not None and settings.base_d_ff is not None, "checked on load"
    if fan_in is FanIn.D_FF:
        return shapes.d_ff / settings.base_d_ff
    return shapes.d_model / settings.base_d_model


def _entry(
    settings: ParametrizationSettings, shapes: ModelShapes, row: ParameterRow
) -> TensorEntry:
    scaled = row.role in WIDTH_SCALED_ROLES
    width = _width_multiplier(settings, shapes, row.fan_in) if scaled else 1.0
    block_width = _width_multiplier(settings, shapes, FanIn.D_MODEL)
    decayed = len(row.shape) >= 2
    scale_decay = scaled and settings.weight_decay_scaling == "width"
    scale_epsilon = row.in_block and settings.epsilon_scaling == "width"
    return TensorEntry(
        name=row.name,
        role=row.role,
        shape=row.shape,
        init_std=_init_std(settings, shapes, row, width),
        initial_mean=row.initial_mean,
        learning_rate_multiplier=1 / width,
        weight_decay_multiplier=(width if scale_decay else 1.0) if decayed else 0.0,
        epsilon_multiplier=1 / block_width if scale_epsilon else 1.0,
    )


def _init_std(
    settings: ParametrizationSettings, shapes: ModelShapes, row: ParameterRow, width: float
) -> float:
    if row.role in (Role.NORM, Role.BIAS):
        return 0.0
    if row.writes_residual:
        if settings.block_output_init_std is not None:
            return settings.block_output_init_std
        return settings.init_std / math.sqrt(2 * shapes.n_layers * width)
    return settings.init_std / math.sqrt(width)
