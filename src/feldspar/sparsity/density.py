"""Compute the density of each tensor and its number of kept entries; loads no torch."""

from collections.abc import Iterable
from decimal import Decimal
from fnmatch import fnmatchcase
from math import floor

from feldspar.core.errors import UserError
from feldspar.core.rows import ParameterRow, Role
from feldspar.recipe.sections.sparsity import AnySparsity, Dense

LOW_FAN_IN = 8
"""With fewer kept inputs of a neuron, the parametrization's averages are not reliable."""


def sparsities(
    settings: AnySparsity, rows: Iterable[ParameterRow], key: str = "sparsity"
) -> dict[str, float]:
    """Return the share of zeros of each masked tensor by name; dense tensors are left out.

    Raises UserError, naming ``key``, for a target or glob that matches nothing, and for a sparsity
    that leaves a neuron without inputs.
    """
    if isinstance(settings, Dense):
        return {}
    maskable = [row for row in rows if row.role is Role.HIDDEN and row.in_block]
    chosen: dict[str, float] = {}
    for target in settings.targets:
        for row in _matching(target, maskable, f"{key}.targets"):
            chosen[row.name] = settings.sparsity
    for pattern, own in settings.per_tensor.items():
        for row in _matching(pattern, maskable, f"{key}.per_tensor"):
            chosen[row.name] = own
    for row in maskable:
        if kept_fan_in(row, density_of(chosen.get(row.name, 0.0))) < 1:
            raise UserError(
                f"{key}: a neuron of {row.name} would keep less than one input",
                found=f"{row.shape[1]} inputs at sparsity {chosen[row.name]:g}",
                do="lower the sparsity or widen the model",
            )
    return {row.name: chosen[row.name] for row in maskable if chosen.get(row.name, 0.0) > 0}


def densities(
    settings: AnySparsity, rows: Iterable[ParameterRow], key: str = "sparsity"
) -> dict[str, float]:
    """Return the kept share of each masked tensor. Raises UserError as ``sparsities`` does."""
    return {name: density_of(share) for name, share in sparsities(settings, rows, key).items()}


def kept_counts(
    settings: AnySparsity, rows: Iterable[ParameterRow], key: str = "sparsity"
) -> dict[str, int]:
    """Return the kept entries of each masked tensor by name; the average number for bernoulli."""
    rows = list(rows)
    entries = {row.name: row.count for row in rows}
    shares = sparsities(settings, rows, key)
    return {name: kept_count(entries[name], share) for name, share in shares.items()}


def density_of(sparsity: float) -> float:
    """Return 1 - sparsity as a decimal number: 0.9 gives 0.1, not 0.09999999999999998."""
    return float(1 - Decimal(repr(sparsity)))


def kept_count(entries: int, sparsity: float) -> int:
    """Return how many of ``entries`` are kept; half an entry counts as zero (2403.00952)."""
    return entries - floor(sparsity * entries + 0.5)


def kept_fan_in(row: ParameterRow, density: float) -> float:
    """Return the mean number of inputs that a neuron of the matrix keeps."""
    return row.shape[1] * density


def low_fan_in_warning(
    settings: AnySparsity, rows: Iterable[ParameterRow], key: str = "sparsity"
) -> str | None:
    """Return a warning about matrices whose neurons keep too few inputs, or None."""
    rows = list(rows)
    kept = densities(settings, rows, key)
    inputs = {row.name: kept_fan_in(row, kept[row.name]) for row in rows if row.name in kept}
    low = [name for name, count in inputs.items() if count < LOW_FAN_IN]
    if not low:
        return None
    worst = min(low, key=lambda name: inputs[name])
    return (
        f"{key}: a neuron of {worst} keeps {inputs[worst]:g} inputs on average, and "
        f"{len(low)} of {len(inputs)} masked matrices keep fewer than {LOW_FAN_IN}; "
        "a parametrization's averages are not reliable there"
    )


def _matching(pattern: str, rows: list[ParameterRow], key: str) -> list[ParameterRow]:
    found = [
        row for row in rows if pattern in row.name.split(".") or fnmatchcase(row.name, pattern)
    ]
    if not found:
        raise UserError(
            f"{key}: {pattern!r} matches no matrix of a block",
            allowed=["attention", "feed_forward", "globs such as blocks.0.*"],
        )
    return found
