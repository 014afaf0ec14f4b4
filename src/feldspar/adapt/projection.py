"""Fit the affine map from a donor's embedding space to the model's, by least squares.

jais-adapted (model card of the release of 2407.12869) maps the rows of a bilingual donor in this
way.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from feldspar.core.errors import UserError

DEFAULT_RIDGE = 1e-3
ENOUGH = 2
"""Number of shared tokens for each dimension of the donor from which no ridge is needed."""


@dataclass(frozen=True)
class AffineMap:
    """``x @ matrix + offset``, float64."""

    matrix: Tensor
    offset: Tensor

    def rows(self, donor: Tensor) -> Tensor:
        """Return the mapped ``donor`` rows (n, d_donor) as float32 (n, d)."""
        return (donor.double() @ self.matrix + self.offset).float()


def ridge_for(shared: int, d_donor: int, ridge: float | None) -> float:
    """Return the penalty for this number of shared tokens.

    Raises UserError for 0 if the tokens do not determine the map.
    """
    if ridge is None:
        return DEFAULT_RIDGE if shared < ENOUGH * d_donor else 0.0
    if ridge == 0 and shared < d_donor + 1:
        raise UserError(
            f"adapt.embeddings.initialisation.ridge: {shared} shared tokens do not determine a map "
            f"from the donor's {d_donor} dimensions",
            allowed=f"give a ridge above 0, or at least {d_donor + 1} shared tokens",
        )
    return ridge


def fit_affine(donor: Tensor, target: Tensor, ridge: float) -> AffineMap:
    """Return the map of ``donor`` rows (s, d_donor) onto ``target`` rows (s, d) of the same tokens.

    ``ridge`` penalises the matrix, not the offset, in units of the donor dimensions' mean variance.
    """
    x, y = donor.double(), target.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    if ridge:
        penalty = ridge * float(x.square().sum()) / x.shape[1]
        root = penalty**0.5 * torch.eye(x.shape[1], dtype=x.dtype)
        x, y = torch.cat([x, root]), torch.cat([y, y.new_zeros(x.shape[1], y.shape[1])])
    matrix = torch.linalg.lstsq(x, y, driver="gelsd").solution
    return AffineMap(matrix, y_mean - x_mean @ matrix)
