"""Compute the parametrization table: a pure function of settings and shapes.

Per tensor it gives the initial standard deviation and multipliers of learning rate, weight decay
and epsilon; for the whole network it gives four forward multipliers. ``sp`` is the standard
parametrization. ``mup`` is the maximal update parametrization (2203.03466) with the rules of
Cerebras-GPT (2304.03208) and BTLM (2309.11568). ``supar`` (2405.15743, table 1) also divides by the
density multiplier. ``completep`` (2505.01618, table 1) adds the rules of depth; so does ``supar``
with a ``depth_exponent``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from feldspar.core.errors import UserError
from feldspar.core.rows import FanIn, ModelShapes, ParameterRow, Role
from feldspar.recipe.sections.optimizer import LanguageOptimizer, OptimizerSettings, UpdateRule
from feldspar.recipe.sections.parametrization import ParametrizationSettings

HIDDEN_RATE_POWER = {"adamw": 1.0, "muon/original": 0.0, "muon/match_rms_adamw": 0.5}
"""By update rule: the learning rate of a hidden matrix is divided by its fan-in multiplier to this
power, so that the spectral norm of its update is in proportion to sqrt(fan-out / fan-in) (condition
1 of 2310.17813; for Muon, 2512.05620 and 2602.20937). AdamW moves each entry by about the rate, and
a neuron sums fan-in such moves of one sign. Muon's update has a spectral norm of about the rate
times its adjustment by the shape: a constant at a fixed ratio of rows to columns (original), or in
proportion to the root of the larger side (match_rms_adamw)."""


@dataclass(frozen=True)
class ForwardMultipliers:
    """Factors in the forward pass: embedding sum, residual branch, attention logits, logits."""

    embedding: float
    residual: float
    attention: float
    output: float


@dataclass(frozen=True)
class TensorEntry:
    """Values of one tensor; multipliers apply to the base hyper-parameters."""

    name: str
    role: Role
    shape: tuple[int, ...]
    density: float
    init_std: float
    initial_mean: float
    learning_rate_multiplier: float
    weight_decay_multiplier: float
    epsilon_multiplier: float
    rule: UpdateRule
    """The update that the multipliers are for."""


@dataclass(frozen=True)
class ParametrizationTable:
    """All entries of a model, in the order of its rows."""

    type: str
    init: str
    learning_rate: float
    forward: ForwardMultipliers
    tensors: tuple[TensorEntry, ...]

    def entry(self, name: str) -> TensorEntry:
        """Return the entry of one tensor."""
        return next(entry for entry in self.tensors if entry.name == name)


def table(
    settings: ParametrizationSettings,
    shapes: ModelShapes,
    densities: Mapping[str, float] | None = None,
    optimizer: LanguageOptimizer = OptimizerSettings(),
) -> ParametrizationTable:
    """Return the table of a model that ``optimizer`` trains.

    ``densities`` gives the kept share of each masked tensor by name; other tensors are dense.
    Raises UserError for a tensor with two rows, and for a density of an unknown tensor or outside
    (0, 1].
    """
    kept = dict(densities or {})
    _check_names(shapes, kept)
    scale = _scale(settings, shapes)
    return ParametrizationTable(
        settings.type,
        settings.init,
        settings.learning_rate,
        forward_multipliers(settings, shapes),
        tuple(
            _entry(settings, shapes, scale, row, kept.get(row.name, 1.0), optimizer.rule(row))
            for row in shapes.rows
        ),
    )


def forward_multipliers(
    settings: ParametrizationSettings, shapes: ModelShapes
) -> ForwardMultipliers:
    """Return the four factors of the forward pass."""
    if settings.type == "sp":
        return ForwardMultipliers(
            embedding=settings.embedding_multiplier,
            residual=1.0,
            attention=settings.attention_multiplier / math.sqrt(shapes.head_dim),
            output=settings.output_multiplier,
        )
    scale = _scale(settings, shapes)
    return ForwardMultipliers(
        embedding=settings.embedding_multiplier,
        residual=scale.residual,
        attention=settings.attention_multiplier / shapes.head_dim,
        output=settings.output_multiplier / scale.width,
    )


def _check_names(shapes: ModelShapes, densities: Mapping[str, float]) -> None:
    names: set[str] = set()
    for row in shapes.rows:
        if row.name in names:
            raise UserError(f"the parameter {row.name} has two rows")
        names.add(row.name)
    for name, density in densities.items():
        if name not in names:
            raise UserError(f"a density is given for {name}, which the model does not have")
        if not 0 < density <= 1:
            raise UserError(f"density of {name}", found=density, allowed="more than 0, at most 1")


@dataclass(frozen=True)
class _Scale:
    """Size of a model relative to its base, in all dimensions that its parametrization uses."""

    width: float = 1.0
    inner_width: float = 1.0
    between_width: float = 1.0
    depth: float = 1.0
    depth_power: float = 1.0

    def fan_in(self, row: ParameterRow) -> float:
        """Return the multiplier of the dimension that a hidden matrix sums over."""
        return {
            FanIn.D_MODEL: self.width,
            FanIn.D_FF: self.inner_width,
            FanIn.D_MODEL_AND_D_FF: self.between_width,
        }[row.fan_in]

    @property
    def residual(self) -> float:
        """Factor of each branch before it is added to the residual stream."""
        return self.depth**-self.depth_power

    @property
    def block_rate(self) -> float:
        """Factor of the blocks' learning rates; it makes up for smaller branches."""
        return self.depth ** (self.depth_power - 1)


def _scale(settings: ParametrizationSettings, shapes: ModelShapes) -> _Scale:
    if settings.type == "sp":
        return _Scale()
    assert settings.base_d_model is not None and settings.base_d_ff is not None, "checked on load"
    d_model, d_ff = settings.base_d_model, settings.base_d_ff
    between = (1 / d_model + 1 / d_ff) / (1 / shapes.d_model + 1 / shapes.d_ff)
    widths = shapes.d_model / d_model, shapes.d_ff / d_ff, between
    if settings.depth_power is None:
        return _Scale(*widths)
    assert settings.base_n_layers is not None, "checked on load"
    return _Scale(*widths, shapes.n_layers / settings.base_n_layers, settings.depth_power)


def _entry(
    settings: ParametrizationSettings,
    shapes: ModelShapes,
    scale: _Scale,
    row: ParameterRow,
    density: float,
    rule: UpdateRule,
) -> TensorEntry:
    width = inputs = 1.0
    if row.role in (Role.HIDDEN, Role.LORA_A):
        width = scale.fan_in(row)
        inputs = width * (density / settings.base_density if settings.type == "supar" else 1.0)
    power = HIDDEN_RATE_POWER[rule.name]
    # Decay is for matrices that map inputs; the vectors of a soft prompt are inputs (2403.00952).
    decays = len(row.shape) >= 2 and row.role is not Role.PROMPT
    # One factor of LoRA's product carries the rate of depth: B, which begins at zero.
    depth = scale.block_rate if row.in_block and row.role is not Role.LORA_A else 1.0
    rate = rule.learning_rate_ratio * depth / inputs**power
    decay = width**power if settings.scales_weight_decay else 1.0
    epsilon = 1.0
    if row.in_block and settings.scales_epsilon:
        epsilon = scale.residual / scale.width
        if row.role is Role.LORA_A:
            # Its gradient sums over the width, in proportion to B, which the rate of B moves.
            epsilon = scale.residual * scale.block_rate
    return TensorEntry(
        name=row.name,
        role=row.role,
        shape=row.shape,
        density=density,
        init_std=_init_std(settings, shapes, row, inputs),
        initial_mean=row.initial_mean,
        learning_rate_multiplier=rate,
        weight_decay_multiplier=decay if decays else 0.0,
        epsilon_multiplier=epsilon,
        rule=rule,
    )


def _init_std(
    settings: ParametrizationSettings, shapes: ModelShapes, row: ParameterRow, inputs: float
) -> float:
    """Return the standard deviation for a neuron that sums ``inputs`` times as many terms as at the
    base."""
    if row.role in (Role.NORM, Role.BIAS, Role.LORA_B):
        return 0.0
    if row.writes_residual and settings.block_output_init_std is not None:
        return settings.block_output_init_std
    if row.writes_residual and settings.depth_power is None:
        inputs *= 2 * shapes.n_layers
    # Where depth is scaled, the residual multiplier limits the sum over the blocks.
    return settings.init_std / math.sqrt(inputs)
