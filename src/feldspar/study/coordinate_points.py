"""Choose the models of a recipe's coordinate check: sizes along each axis, and parametrizations.

The recipe gives the kind of model (positions, feed-forward layer, norm, biases, tied embeddings,
ratios of heads and of d_ff) and the distribution of initial values. Sizes and base hyper-parameters
are fixed by the check, so that its thresholds mean the same for each recipe. The recipe's forward
multipliers are not used: they were tuned together with init_std and learning_rate, no rule depends
on them, and a large embedding_multiplier would hide the changes of the blocks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.rows import ModelShapes
from feldspar.parametrization.coordinates import AXES, Axis
from feldspar.parametrization.tables import ParametrizationTable, table
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.model import ModelSettings, RotaryPositions
from feldspar.recipe.sections.optimizer import LanguageOptimizer, OptimizerSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings, ParametrizationType
from feldspar.recipe.sections.study import Range
from feldspar.study.coordinate_runs import CONTEXT_TOKENS, VOCAB_SIZE

HEAD_DIM = 32
BASE_D_MODEL = 64
BASE_N_LAYERS = 2
DENSITY_D_MODEL = 256
INIT_STD = 0.08
STANDARD_INIT_STD = 0.02
LEARNING_RATES: dict[Axis, float] = {"width": 1e-2, "density": 1e-2, "depth": 4e-3}


@dataclass(frozen=True)
class Spread:
    """Values of an axis, and the number of seeds at each of them."""

    values: tuple[float, ...]
    seeds: int


FULL: dict[Axis, Spread] = {
    "width": Spread((64, 128, 256, 512), 5),
    "density": Spread((1, 1 / 2, 1 / 4, 1 / 8, 1 / 16), 5),
    "depth": Spread((2, 4, 8, 16), 5),
}
QUICK: dict[Axis, Spread] = {
    "width": Spread((64, 128, 256), 6),
    "density": Spread((1, 1 / 4, 1 / 16), 2),
    "depth": Spread((2, 4, 16), 4),
}
"""Log2 sizes differ by 0.3 between seeds. With fewer octaves, more seeds are needed to tell a slope
of 0.25 from 0."""
QUICK_POINTS = 3
STUDY_KEYS: dict[Axis, str] = {
    "width": "model.d_model",
    "density": "phases.0.sparsity.sparsity",
    "depth": "model.n_layers",
}

TableRule = Callable[
    [ParametrizationSettings, ModelShapes, Mapping[str, float], LanguageOptimizer],
    ParametrizationTable,
]


@dataclass(frozen=True)
class Candidate:
    """A parametrization to judge; ``rule`` makes its tables."""

    name: str
    settings: ParametrizationSettings
    rule: TableRule = table
    optimizer: LanguageOptimizer = field(default_factory=OptimizerSettings)
    """The optimizer of its runs, in the check's own settings."""


@dataclass(frozen=True)
class Point:
    """The size of one model of the check."""

    d_model: int
    n_layers: int
    density: float


def point_on(axis: Axis, value: float) -> Point:
    """Return the model at one value of an axis; the other two axes keep their base values."""
    if axis == "width":
        return Point(int(value), BASE_N_LAYERS, 1.0)
    if axis == "depth":
        return Point(BASE_D_MODEL, int(value), 1.0)
    return Point(DENSITY_D_MODEL, BASE_N_LAYERS, value)


def model_at(kind: ModelSettings, point: Point, head_dim: int = HEAD_DIM) -> ModelSettings:
    """Return a small byte-level decoder of the same kind."""
    n_heads = point.d_model // head_dim
    positions = kind.positions
    if isinstance(positions, RotaryPositions):
        rotated = max(2 * round(positions.fraction * head_dim / 2), 2)
        positions = positions.model_copy(update={"fraction": rotated / head_dim})
    return kind.model_copy(
        update={
            "n_layers": point.n_layers,
            "d_model": point.d_model,
            "n_heads": n_heads,
            "n_kv_heads": _kv_heads(n_heads, kind.n_heads // kind.kv_heads),
            "head_dim": head_dim,
            "d_ff": round(_inner_share(kind) * point.d_model),
            "vocab_size": VOCAB_SIZE,
            "max_sequence_length": CONTEXT_TOKENS,
            "positions": positions,
            "dropout": 0.0,
        }
    )


def candidates_of(recipe: Recipe) -> tuple[Candidate, ...]:
    """Return all parametrizations; the recipe's own is always included."""
    own = recipe.parametrization
    kinds: list[tuple[ParametrizationType, float | None]] = [
        ("sp", None),
        ("mup", None),
        ("supar", None),
        ("completep", None),
        ("completep", 0.5),
        ("supar", 1.0),
        (own.type, own.depth_exponent),
    ]
    found = {}
    for type_, exponent in kinds:
        settings = _settings(recipe, type_, exponent)
        found[name_of(settings)] = settings
    return tuple(
        Candidate(name, settings, optimizer=recipe.optimizer) for name, settings in found.items()
    )


def name_of(settings: ParametrizationSettings) -> str:
    """Return the type, with the depth exponent if it is not the type's default."""
    if settings.depth_exponent is None or (settings.type, settings.depth_power) == (
        "completep",
        1.0,
    ):
        return settings.type
    return f"{settings.type}:{settings.depth_exponent:g}"


def spreads_of(recipe: Recipe, quick: bool) -> dict[Axis, Spread]:
    """Return the values of each axis: the recipe's ``study.vary``, else defaults.

    Raises UserError for values that no model of the check can have.
    """
    vary = recipe.study.vary if recipe.study else {}
    found = dict(QUICK if quick else FULL)
    for axis in AXES:
        key = STUDY_KEYS[axis]
        if key in vary:
            values = _checked(axis, f"study.vary: {key}", _grid(key, vary[key]))
            values = _three_of(values) if quick else values
            found[axis] = replace(found[axis], values=values)
    return found


def _settings(
    recipe: Recipe, type_: ParametrizationType, exponent: float | None
) -> ParametrizationSettings:
    own = recipe.parametrization
    return ParametrizationSettings(
        type=type_,
        base_d_model=BASE_D_MODEL,
        base_d_ff=_inner_share(recipe.model) * BASE_D_MODEL,
        base_n_layers=BASE_N_LAYERS,
        init=own.init,
        init_std=STANDARD_INIT_STD if type_ == "sp" else INIT_STD,
        block_output_init_std=own.block_output_init_std if type_ == own.type else None,
        learning_rate=LEARNING_RATES["width"],
        depth_exponent=exponent,
    )


def _inner_share(kind: ModelSettings) -> float:
    return kind.d_ff / kind.d_model


def _kv_heads(n_heads: int, shared: int) -> int:
    """Return the largest number of key heads that serve at least ``shared`` query heads each."""
    return next((n for n in range(n_heads // shared, 0, -1) if n_heads % n == 0), 1)


def _grid(key: str, given: Sequence[Any] | Range) -> Sequence[Any]:
    if not isinstance(given, Range):
        return given
    if given.points is None:
        raise UserError(
            f"study.vary: {key} is a range without points",
            do=f"add points, or list the values: {key}: [...]",
        )
    # A logarithmic grid gives numbers such as 256.00000000000006.
    return [round(value, 9) for value in given.grid()]


def _checked(axis: Axis, key: str, given: Sequence[Any]) -> tuple[float, ...]:
    """Return sorted values without repeats; sparsities become densities."""
    for value in given:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{key}: {value!r} is not a number")
        if axis == "density" and not 0 <= value < 1:
            raise UserError(f"{key}: {value:g} is not a sparsity", allowed="0 to less than 1")
        if axis == "width" and (value < HEAD_DIM or value % HEAD_DIM):
            raise UserError(
                f"{key}: {value:g} is not a width of the check",
                allowed=f"multiples of its head_dim, {HEAD_DIM}",
            )
        if axis == "depth" and (value < 1 or value % 1):
            raise UserError(f"{key}: {value:g} is not a number of blocks")
    values = sorted({1 - value if axis == "density" else value for value in given})
    if len(values) < 2:
        raise UserError(f"{key}: a slope needs two different values", found=list(given))
    return tuple(values[::-1] if axis == "density" else values)


def _three_of(values: tuple[float, ...]) -> tuple[float, ...]:
    """Return at most three of the values, both ends included."""
    if len(values) <= QUICK_POINTS:
        return values
    return values[0], values[len(values) // 2], values[-1]
