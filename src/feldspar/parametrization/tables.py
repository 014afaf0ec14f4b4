"""The parametrization table: a pure function of settings and shapes.

Per tensor: initial standard deviation and multipliers of learning rate, weight decay and epsilon;
for the whole network: four forward multipliers. ``sp`` is the standard parametrization; ``mup`` the
maximal update parametrization (2203.03466) with the rules of Cerebras-GPT (2304.03208) and BTLM
(2309.11568); ``supar`` (2405.15743, table 1) divides by the density multiplier too; ``completep``
(2505.01618, table 1) adds the rules of depth, as does ``supar`` with a ``depth_exponent``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from feldspar.core.errors import UserError
from feldspar.core.rows import FanIn, ModelShapes, ParameterRow, Role
from feldspar.parametrization.settings import ParametrizationSettings


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
    density: float
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


def table(
    settings: ParametrizationSettings,
    shapes: ModelShapes,
    densities: Mapping[str, float] | None = None,
) -> ParametrizationTable:
    """The table of a model.

    ``densities`` gives the kept share of each masked tensor by name; a tensor that it does not
    name is dense. Raises UserError for a density of no tensor, or outside (0, 1].
    """
    kept = dict(densities or {})
    _check_densities(kept, shapes)
    return ParametrizationTable(
        settings.type,
        settings.init,
        settings.learning_rate,
        forward_multipliers(settings, shapes),
        tuple(_entry(settings, shapes, row, kept.get(row.name, 1.0)) for row in shapes.rows),
    )


def forward_multipliers(
    settings: ParametrizationSettings, shapes: ModelShapes
) -> ForwardMultipliers:
    """The four factors of the forward pass."""
    if settings.type == "sp":
        return ForwardMultipliers(1.0, 1.0, 1 / math.sqrt(shapes.head_dim), 1.0)
    return ForwardMultipliers(
        embedding=settings.embedding_multiplier,
        residual=_depth_factor(settings, shapes, -1.0),
        attention=settings.attention_multiplier / shapes.head_dim,
        output=settings.output_multiplier / _width_multiplier(settings, shapes, FanIn.D_MODEL),
    )


def _check_densities(densities: Mapping[str, float], shapes: ModelShapes) -> None:
    names = {row.name for row in shapes.rows}
    for name, density in densities.items():
        if name not in names:
            raise UserError(f"a density is given for {name}, which the model lacks")
        if not 0 < density <= 1:
            raise UserError(f"density of {name}", found=density, allowed="more than 0, at most 1")


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


def _depth_factor(
    settings: ParametrizationSettings, shapes: ModelShapes, sign: float, offset: float = 0.0
) -> float:
    """The depth multiplier to the power sign x exponent + offset; 1 where depth is not scaled."""
    if settings.depth_power is None:
        return 1.0
    assert settings.base_n_layers is not None, "checked on load"
    depth = shapes.n_layers / settings.base_n_layers
    return depth ** (sign * settings.depth_power + offset)


def _entry(
    settings: ParametrizationSettings, shapes: ModelShapes, row: ParameterRow, density: float
) -> TensorEntry:
    hidden = row.role is Role.HIDDEN
    width = _width_multiplier(settings, shapes, row.fan_in) if hidden else 1.0
    kept = density / settings.base_density if hidden and settings.type == "supar" else 1.0
    depth = _depth_factor(settings, shapes, 1.0, -1.0) if row.in_block else 1.0
    decayed = len(row.shape) >= 2
    return TensorEntry(
        name=row.name,
        role=row.role,
        shape=row.shape,
        density=density,
        init_std=_init_std(settings, shapes, row, width * kept),
        initial_mean=row.initial_mean,
        learning_rate_multiplier=depth / (width * kept),
        weight_decay_multiplier=(width if settings.scales_weight_decay else 1.0) * decayed,
        epsilon_multiplier=_epsilon_multiplier(settings, shapes, row),
    )


def _epsilon_multiplier(
    settings: ParametrizationSettings, shapes: ModelShapes, row: ParameterRow
) -> float:
    if not row.in_block or not settings.scales_epsilon:
        return 1.0
    width = _width_multiplier(settings, shapes, FanIn.D_MODEL)
    return _depth_factor(settings, shapes, -1.0) / width


def _init_std(
    settings: ParametrizationSettings, shapes: ModelShapes, row: ParameterRow, scale: float
) -> float:
    """The standard deviation; ``scale`` multiplies the variance that a fan-in adds up."""
    if row.role in (Role.NORM, Role.BIAS):
        return 0.0
    if not row.writes_residual:
        return settings.init_std / math.sqrt(scale)
    if settings.block_output_init_std is not None:
        return settings.block_output_init_std
    if settings.depth_power is not None:
        # The residual multiplier already keeps the sum over the blocks in bounds.
        return settings.init_std / math.sqrt(scale)
    return settings.init_std / math.sqrt(2 * shapes.n_layers * scale)
