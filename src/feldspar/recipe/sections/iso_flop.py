"""Settings of Sparse-IFT: a sparse model with the FLOPs of a dense one (2303.11525, section 2)."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction as Ratio
from math import ceil, floor, isqrt
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from feldspar.recipe.base import Settings, without_defaults
from feldspar.recipe.sections.sparsity import (
    AnySparsity,
    Dense,
    Fraction,
    GradualSparsity,
    StaticSparsity,
)

SAME_NUMBER = Ratio(1, 10**5)
"""Largest relative difference between 1 / (1 - sparsity) and a whole number of branches."""
WIDTHS = ("d_model", "d_ff", "head_dim")
"""Keys of a model whose numbers a wide model changes."""


def _not_dense(value: float) -> float:
    if value == 0:
        raise ValueError(
            "sparsity must be more than 0; for a dense model, leave sparse_iso_flop out"
        )
    return value


class DenseWidths(Settings):
    """Widths of the dense model that a wide model stands for."""

    d_model: Annotated[int, Field(gt=0)]
    """Width of its residual stream."""
    d_ff: Annotated[int, Field(gt=0)]
    """Hidden width of its feed-forward layer."""
    head_dim: Annotated[int, Field(gt=0)] | None = None
    """Width of one of its heads, where the recipe gives it."""


class IsoFlopSettings(Settings):
    """The sparse model that stands for the dense one that the section describes."""

    type: Literal["wide", "parallel", "factorized", "doped"]
    """wide: all widths are divided by sqrt(1 - sparsity). The others replace each matrix of the
    blocks. parallel: by the sum of 1 / (1 - sparsity) sparse matrices, each with a nonlinearity
    behind it. factorized: by two sparse matrices with a nonlinearity between them. doped: by a
    sparse matrix plus a dense one of low rank."""
    sparsity: Annotated[Fraction, AfterValidator(_not_dense)]
    """Share of zeros in the matrices of the blocks; also the first phase's sparsity."""
    dense: DenseWidths | None = None
    """The dense model's widths. feldspar fills them in where it widens the model."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ("dense",))

    @model_validator(mode="after")
    def _branches_are_whole(self) -> Self:
        if self.type != "parallel":
            return self
        exact = 1 / self.density
        if self.branches < 2 or abs(exact / self.branches - 1) > SAME_NUMBER:
            counts = {max(floor(exact), 2), max(ceil(exact), 2)}
            nearest = sorted(counts, key=lambda count: abs(1 - 1 / count - self.sparsity))
            allowed = " or ".join(f"{1 - 1 / count:.6g} ({count} branches)" for count in nearest)
            raise ValueError(
                f"sparsity: parallel has 1 / (1 - sparsity) branches, and {self.sparsity:g} gives "
                f"{float(exact):g}, which is not a whole number of at least 2; the nearest "
                f"sparsity: {allowed}"
            )
        return self

    @property
    def density(self) -> Ratio:
        """1 - sparsity, exactly as the recipe writes it."""
        return 1 - Ratio(Decimal(repr(self.sparsity)))

    @property
    def masks(self) -> StaticSparsity:
        """The sparsity of a first phase that gives none."""
        return StaticSparsity(type="static", sparsity=self.sparsity)

    @property
    def branches(self) -> int:
        """Number of matrices of Sparse Parallel in place of one."""
        return round(1 / self.density)

    def factorized_width(self, n_in: int, n_out: int) -> int:
        """Return the width between the matrices of Sparse Factorized, rounded up."""
        return ceil(n_in * n_out / (self.density * (n_in + n_out)))

    def doped_rank(self, n_in: int, n_out: int) -> int:
        """Return the rank of the dense part of Sparse Doped, rounded down."""
        return floor((1 - self.density) * n_in * n_out / (n_in + n_out))

    def misfit(self, sparsity: AnySparsity) -> str | None:
        """Return the key of a first phase's sparsity that breaks the FLOPs, and why; else None."""
        do = "leave it out: it then follows from model.sparse_iso_flop"
        if isinstance(sparsity, Dense) or sparsity.sparsity != self.sparsity:
            found = 0.0 if isinstance(sparsity, Dense) else sparsity.sparsity
            return (
                f"sparsity: {found:g} is not the sparsity of model.sparse_iso_flop, "
                f"{self.sparsity:g}, at which the model has the FLOPs of the dense one; {do}"
            )
        if isinstance(sparsity, GradualSparsity):
            return (
                "sparsity.type: gradual masks begin with more FLOPs than the dense model of "
                "model.sparse_iso_flop; use static, set or rigl"
            )
        for key in ("targets", "per_tensor"):
            if getattr(sparsity, key) != type(sparsity).model_fields[key].default:
                return f"sparsity.{key}: model.sparse_iso_flop masks all matrices alike; {do}"
        return None


def widened(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a model's values with the widths of its wide model instead of the dense ones.

    Everything else is returned as it is: other members, a model that was widened before, and values
    that do not fit together, which later checks report.
    """
    try:
        settings = IsoFlopSettings.model_validate(values.get("sparse_iso_flop"))
        dense = DenseWidths.model_validate({name: values.get(name) for name in WIDTHS})
    except ValidationError:
        return values
    heads = values.get("n_heads")
    if settings.type != "wide" or settings.dense is not None:
        return values
    if not isinstance(heads, int) or heads < 1:
        return values
    if dense.head_dim is None and dense.d_model % heads:
        return values
    rotated = _rotated_share(values.get("positions"))
    wide = wide_widths(dense, settings.density, heads, rotated)
    return {**values, **wide, "sparse_iso_flop": settings.model_copy(update={"dense": dense})}


def wide_widths(
    dense: DenseWidths, density: Ratio, n_heads: int, rotated: float = 0.0
) -> dict[str, int | None]:
    """Return d_model, d_ff and head_dim of the wide model.

    d_model is d / sqrt(density), rounded up to a multiple of the heads. d_ff keeps its ratio to
    d_model and is rounded up. A head keeps an even number of ``rotated`` dimensions, because
    rotary positions turn them in pairs; ``rotated`` is their share.
    """
    d_model = _widened(dense.d_model, density, n_heads)
    head_dim = None
    if dense.head_dim is not None:
        head_dim = _widened(dense.head_dim, density, 1)
        while _is_odd(rotated * head_dim):
            head_dim += 1
    else:
        while _is_odd(rotated * (d_model // n_heads)):
            d_model += n_heads
    return {
        "d_model": d_model,
        "d_ff": ceil(Ratio(dense.d_ff * d_model, dense.d_model)),
        "head_dim": head_dim,
    }


def wide_misfit(
    settings: IsoFlopSettings, widths: Mapping[str, int | None], n_heads: int, rotated: float
) -> str | None:
    """Return the reason why ``widths`` are not those of the wide model, or None."""
    if settings.dense is None:
        return None
    wanted = wide_widths(settings.dense, settings.density, n_heads, rotated)
    wrong = next((name for name in WIDTHS if widths[name] != wanted[name]), None)
    if wrong is None:
        return None
    return (
        f"sparse_iso_flop.dense: its {wrong} {getattr(settings.dense, wrong)} widens to "
        f"{wanted[wrong]}, but the model has {widths[wrong]}; leave sparse_iso_flop.dense out, and "
        "give the widths of the dense model"
    )


def _widened(width: int, density: Ratio, multiple: int) -> int:
    """Return the smallest multiple of ``multiple`` whose square times ``density`` is at least that
    of ``width``."""
    squares = ceil(width * width / density / (multiple * multiple))
    return multiple * (isqrt(squares - 1) + 1)


def _is_odd(dimensions: float) -> bool:
    return bool(round(dimensions) % 2)


def _rotated_share(positions: Any) -> float:
    """Return the share of a head that positions rotate, as a recipe writes them; else 0."""
    if isinstance(positions, Settings):
        positions = positions.model_dump()
    if isinstance(positions, str):
        positions = {"type": positions}
    if not isinstance(positions, dict) or positions.get("type") != "rotary":
        return 0.0
    share = positions.get("fraction", 1.0)
    return float(share) if isinstance(share, int | float) and 0 < share <= 1 else 0.0
