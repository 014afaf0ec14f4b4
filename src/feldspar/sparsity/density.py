"""The density of each tensor, and how many entries that keeps; without torch."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from math import floor

from feldspar.core.errors import UserError
from feldspar.core.rows import ParameterRow, Role
from feldspar.sparsity.settings import Dense, StaticSparsity

MEAGRE_FAN_IN = 8
"""Below this many kept inputs of a neuron the parametrization's averages no longer hold."""


def densities(settings: Dense | StaticSparsity, rows: Iterable[ParameterRow]) -> dict[str, float]:
    """The kept share of each masked tensor by name; dense tensors are not named.

    Raises UserError for a target or glob that matches nothing and for a density that leaves a
    neuron without inputs.
    """
    if isinstance(settings, Dense):
        return {}
    maskable = [row for row in rows if row.role is Role.HIDDEN and row.in_block]
    sparsity: dict[str, float] = {}
    for target in settings.targets:
        for row in _matching(target, maskable, "targets"):
            sparsity[row.name] = settings.sparsity
    for pattern, own in settings.per_tensor.items():
        for row in _matching(pattern, maskable, "per_tensor"):
            sparsity[row.name] = own
    kept = {name: 1 - share for name, share in sparsity.items() if share > 0}
    for row in maskable:
        if row.name in kept and kept_fan_in(row, kept[row.name]) < 1:
            raise UserError(
                f"sparsity: {row.name} would keep fewer than one input of each neuron",
                found=f"{row.shape[1]} inputs at density {kept[row.name]:g}",
                do="lower the sparsity or widen the model",
            )
    return {row.name: kept[row.name] for row in maskable if row.name in kept}


def kept_count(entries: int, sparsity: float) -> int:
    """Entries that stay of ``entries``; half an entry rounds towards zeros (2403.00952)."""
    return entries - floor(sparsity * entries + 0.5)


def kept_fan_in(row: ParameterRow, density: float) -> float:
    """The mean number of inputs that a neuron of the matrix keeps."""
    return row.shape[1] * density


def _matching(pattern: str, rows: list[ParameterRow], key: str) -> list[ParameterRow]:
    found = [
        row for row in rows if pattern in row.name.split(".") or fnmatchcase(row.name, pattern)
    ]
    if not found:
        raise UserError(
            f"sparsity.{key}: {pattern!r} matches no matrix of a block",
            allowed=["attention", "feed_forward", "globs such as blocks.0.*"],
        )
    return found
