"""Compute the density of each tensor and its number of kept entries; loads no torch."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction
from math import floor, prod
from typing import TypeVar

from feldspar.core.errors import UserError
from feldspar.core.rows import ParameterRow, Role
from feldspar.recipe.sections.sparsity import (
    AnySparsity,
    Dense,
    GradualSparsity,
    MaskedSettings,
    StaticSparsity,
)

Number = TypeVar("Number", int, float)

LOW_FAN_IN = 8
"""With fewer kept inputs of a neuron, the parametrization's averages are not reliable."""


def sparsities(
    settings: AnySparsity, rows: Iterable[ParameterRow], key: str = "sparsity"
) -> dict[str, float]:
    """Return the share of zeros of each masked tensor by name; dense tensors are left out.

    Kept counts are rounded to whole blocks afterwards. Raises UserError, naming ``key``, for a
    target or glob that matches nothing, for a sparsity that leaves a matrix without entries or a
    neuron without inputs, and for a matrix that does not consist of whole blocks, or of whole
    groups of the pattern.
    """
    if isinstance(settings, Dense):
        return {}
    rows = list(rows)
    maskable = [row for row in rows if row.role is Role.HIDDEN and row.in_block and row.maskable]
    chosen: dict[str, float] = {}
    for target in settings.targets:
        for row in _matching(target, maskable, rows, f"{key}.targets"):
            chosen[row.name] = settings.sparsity
    own: dict[str, float] = {}
    for pattern, share in settings.per_tensor.items():
        for row in _matching(pattern, maskable, rows, f"{key}.per_tensor"):
            own[row.name] = share
    if settings.distribution != "uniform":
        free = {row.name: row.shape for row in maskable if row.name in chosen.keys() - own.keys()}
        chosen |= distribute(free, settings.sparsity, settings.distribution)
    chosen |= own
    masked = {row.name: chosen[row.name] for row in maskable if chosen.get(row.name, 0.0) > 0}
    for row in maskable:
        if row.name in masked:
            _require_whole_parts(row, settings, key)
            _require_inputs(row, masked[row.name], settings, key)
    return masked


def distribute(
    shapes: Mapping[str, tuple[int, ...]], sparsity: float, distribution: str
) -> dict[str, float]:
    """Return the share of zeros of each tensor, so that together they have ``sparsity``.

    ``er``: densities are in proportion to (inputs + outputs) / (inputs x outputs) (1707.04780,
    equation 3). ``erk``: in proportion to the sum of all dimensions divided by their product
    (1911.11134, section 3). A tensor whose density would be more than 1 is dense, and the other
    densities are solved again. The numbers are exact fractions until they are returned.
    """
    entries = {name: prod(shape) for name, shape in shapes.items()}
    weights = {
        name: Fraction(sum(sizes), prod(sizes))
        for name, shape in shapes.items()
        for sizes in [shape[:2] if distribution == "er" else shape]
    }
    left = (1 - Fraction(repr(sparsity))) * sum(entries.values())
    density: dict[str, Fraction] = {}
    while weights:
        scale = left / sum(weight * entries[name] for name, weight in weights.items())
        full = [name for name, weight in weights.items() if scale * weight >= 1]
        for name in full or list(weights):
            density[name] = Fraction(1) if full else scale * weights[name]
            left -= density[name] * entries[name]
            del weights[name]
    return {name: float(1 - density[name]) for name in shapes}


def starting_sparsities(settings: AnySparsity, final: Mapping[str, float]) -> dict[str, float]:
    """Return the share of zeros of each masked tensor in the masks that a phase begins with.

    ``final`` are the shares of ``sparsities``. They are also the first ones, except for gradual
    pruning, where each tensor begins with the same part of its own share.
    """
    if not isinstance(settings, GradualSparsity) or not settings.sparsity:
        return dict(final)
    first, last = settings.initial_sparsity, settings.sparsity
    return {name: first * (share / last) for name, share in final.items()}


def densities(
    settings: AnySparsity, rows: Iterable[ParameterRow], key: str = "sparsity"
) -> dict[str, float]:
    """Return the kept share of each masked tensor.

    For single entries it is 1 - sparsity, as a recipe says it; the count of entries differs from it
    by half an entry at most. For blocks and patterns it is the share that the mask really keeps.
    Raises UserError as ``sparsities`` does.
    """
    return _of_masked(_density, settings, rows, key)


def kept_counts(
    settings: AnySparsity, rows: Iterable[ParameterRow], key: str = "sparsity"
) -> dict[str, int]:
    """Return the kept entries of each masked tensor by name; the average number for bernoulli."""
    return _of_masked(kept_entries, settings, rows, key)


def density_of(sparsity: float) -> float:
    """Return 1 - sparsity as a decimal number: 0.9 gives 0.1, not 0.09999999999999998."""
    return float(1 - Decimal(repr(sparsity)))


def kept_count(parts: int, sparsity: float) -> int:
    """Return how many of ``parts`` (entries or blocks) are kept; half a part counts as zero
    (2403.00952)."""
    return parts - floor(sparsity * parts + 0.5)


def kept_fan_in(row: ParameterRow, density: float) -> float:
    """Return the mean number of inputs that a neuron of the matrix keeps."""
    return row.shape[1] * density


def low_fan_in_warning(
    settings: AnySparsity, rows: Iterable[ParameterRow], key: str = "sparsity"
) -> str | None:
    """Return a warning about matrices whose neurons keep too few inputs, or None.

    The columns of a block are kept together, so that they count as one input.
    """
    rows = list(rows)
    kept = densities(settings, rows, key)
    columns = settings.block[1] if isinstance(settings, MaskedSettings) else 1
    inputs = {row.name: kept_fan_in(row, kept[row.name]) for row in rows if row.name in kept}
    low = [name for name, count in inputs.items() if count < LOW_FAN_IN * columns]
    if not low:
        return None
    worst = min(low, key=lambda name: inputs[name])
    unit = "inputs" if columns == 1 else f"blocks of {columns} inputs"
    return (
        f"{key}: a neuron of {worst} keeps {inputs[worst] / columns:g} {unit} on average, and "
        f"{len(low)} of {len(inputs)} masked matrices keep fewer than {LOW_FAN_IN}; "
        "a parametrization's averages are not reliable there"
    )


def kept_entries(row: ParameterRow, share: float, settings: MaskedSettings) -> int:
    """Return the kept entries of a matrix at a share of zeros: whole blocks, or N of each M."""
    if isinstance(settings, StaticSparsity) and settings.kept_of is not None:
        kept, group = settings.kept_of
        return row.count // group * kept
    size = prod(settings.block)
    return size * kept_count(row.count // size, share)


def _of_masked(
    figure: Callable[[ParameterRow, float, MaskedSettings], Number],
    settings: AnySparsity,
    rows: Iterable[ParameterRow],
    key: str,
) -> dict[str, Number]:
    """Return a figure of each masked tensor, computed from its row and its share of zeros."""
    if isinstance(settings, Dense):
        return {}
    rows = list(rows)
    shares = sparsities(settings, rows, key)
    return {row.name: figure(row, shares[row.name], settings) for row in rows if row.name in shares}


def _density(row: ParameterRow, share: float, settings: MaskedSettings) -> float:
    if _counts_single_entries(settings):
        return density_of(share)
    return kept_entries(row, share, settings) / row.count


def _counts_single_entries(settings: MaskedSettings) -> bool:
    patterned = isinstance(settings, StaticSparsity) and settings.pattern is not None
    return prod(settings.block) == 1 and not patterned


def _require_whole_parts(row: ParameterRow, settings: MaskedSettings, key: str) -> None:
    """Raise UserError unless the matrix consists of whole blocks, or of groups of the pattern."""
    high, wide = settings.block
    if row.shape[0] % high or row.shape[1] % wide:
        raise UserError(
            f"{key}.block: {row.name} does not consist of whole blocks of {high} rows x "
            f"{wide} columns",
            found=f"{row.shape[0]} rows (outputs) x {row.shape[1]} columns (inputs)",
            do="choose a block whose numbers divide these, or leave the matrix out: "
            f"per_tensor: {{{row.name}: 0}}",
        )
    if isinstance(settings, StaticSparsity) and settings.kept_of is not None:
        group = settings.kept_of[1]
        if row.shape[1] % group:
            raise UserError(
                f"{key}.pattern: the inputs of {row.name} do not divide into groups of {group}",
                found=f"{row.shape[1]} inputs with the pattern {settings.pattern}",
                do=f"make its inputs a multiple of {group}, or choose another pattern",
            )


def _require_inputs(row: ParameterRow, share: float, settings: MaskedSettings, key: str) -> None:
    """Raise UserError where a neuron keeps less than one input on average."""
    if _counts_single_entries(settings):
        too_few, size = kept_fan_in(row, density_of(share)) < 1, ""
    else:
        too_few = kept_entries(row, share, settings) < row.shape[0]
        size = f", in blocks of {list(settings.block)}"
    if too_few:
        raise UserError(
            f"{key}: a neuron of {row.name} would keep less than one input",
            found=f"{row.shape[1]} inputs at sparsity {share:g}{size}",
            do="lower the sparsity or widen the model",
        )


def _matching(
    pattern: str, maskable: list[ParameterRow], rows: list[ParameterRow], key: str
) -> list[ParameterRow]:
    """Return the matrices of blocks that ``pattern`` names. Raises UserError if it names none."""

    def matches(row: ParameterRow) -> bool:
        return pattern in row.name.split(".") or fnmatchcase(row.name, pattern)

    found = [row for row in maskable if matches(row)]
    if not found:
        others = ", ".join(row.name for row in rows if matches(row))
        dense = f"; these stay dense: {others}" if others else ""
        raise UserError(
            f"{key}: {pattern!r} matches no matrix of a block{dense}",
            allowed=["attention", "feed_forward", "globs such as blocks.0.*"],
        )
    return found
