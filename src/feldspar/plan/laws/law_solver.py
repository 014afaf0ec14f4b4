"""Least squares of log L(f) = log(exp(u - a x) + b) for many series of losses over the same FLOPs.

x is log f less its mean, so that the unit of FLOPs does not matter. The steps are taken in m, the
log loss at x = 0, in s, how fast log L falls there, and in b: the data fix m and s well and b
badly, and a long valley that is straight in these is bent in u, a and b. Levenberg-Marquardt steps,
projected on s > 0 (hence a > 0) and 0 <= b < min L, from several starts in b: for a fixed b the
start is a straight line through log(L - b).
"""

from dataclasses import dataclass

import numpy as np

STARTS = 16
MAX_STEPS = 400
LEAST_SLOPE = 1e-9
MOST_CONSTANT = 1 - 1e-6
"""Upper bound of the constant as a share of the least loss, where log(L - b) stays finite."""
DAMPING = (1e-9, 1e9)
SETTLED = 1e-12
EXACT = 1e-28
"""Mean squared residual of points that lie on a curve up to rounding."""


@dataclass(frozen=True)
class Curves:
    """Fitted curves exp(level - exponent x) + constant; each array has an entry for each curve."""

    level: np.ndarray
    exponent: np.ndarray
    constant: np.ndarray

    def losses(self, x: np.ndarray) -> np.ndarray:
        """Return the loss of each curve (rows) at each ``x``, log FLOPs less the mean of
        the fit.
        """
        fallen = np.exp(self.level[:, None] - self.exponent[:, None] * x)
        return fallen + self.constant[:, None]


def fit_curves(
    x: np.ndarray, log_losses: np.ndarray, *, with_constant: bool, huber: float | None = None
) -> Curves:
    """Fit a curve to each row of ``log_losses`` (k, n) over centred log FLOPs ``x`` (n,).

    Without a constant the curve is a straight line in logarithms. ``huber``: residuals above it
    count by their size and not by their square.
    """
    least = np.exp(log_losses.min(axis=1))
    shares = np.linspace(0, 1, STARTS, endpoint=False) if with_constant else np.zeros(1)
    constants = least[:, None] * shares
    rows = np.repeat(log_losses, len(shares), axis=0)
    parameters = _lines(x, rows, constants.ravel())
    parameters, costs = _descend(
        x, rows, parameters, np.repeat(least, len(shares)), with_constant, huber
    )
    best = costs.reshape(constants.shape).argmin(axis=1)
    middle, slope, constant = parameters.reshape(*constants.shape, 3)[np.arange(len(best)), best].T
    fallen = np.exp(middle) - constant
    return Curves(np.log(fallen), slope * np.exp(middle) / fallen, constant)


def _lines(x: np.ndarray, log_losses: np.ndarray, constants: np.ndarray) -> np.ndarray:
    """Return parameters (k, 3) of straight lines through log(L - b) for the given b."""
    logs = np.log(np.exp(log_losses) - constants[:, None])
    exponent = np.maximum(-(logs * x).sum(axis=1) / (x * x).sum(), LEAST_SLOPE)
    fallen = np.exp(logs.mean(axis=1))
    loss = fallen + constants
    return np.stack([np.log(loss), exponent * fallen / loss, constants], axis=1)


def _descend(
    x: np.ndarray,
    log_losses: np.ndarray,
    parameters: np.ndarray,
    least: np.ndarray,
    with_constant: bool,
    huber: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Take Levenberg-Marquardt steps on all rows at once. Rows that have converged stay."""
    lower = np.array([-np.inf, LEAST_SLOPE, 0.0])
    upper = np.full_like(parameters, np.inf)
    upper[:, 2] = least * MOST_CONSTANT if with_constant else 0.0
    parameters = parameters.copy()
    residuals, slopes = _linearised(x, log_losses, parameters)
    costs = _cost(residuals, huber)
    damping = np.full(len(parameters), 1e-3)
    live = np.arange(len(parameters))
    for _ in range(MAX_STEPS):
        now = parameters[live]
        step = _step(residuals[live], slopes[live], damping[live], now, lower, upper[live], huber)
        proposed = np.clip(now + step, lower, upper[live])
        new_residuals, new_slopes = _linearised(x, log_losses[live], proposed)
        new_costs = _cost(new_residuals, huber)
        better = new_costs < costs[live]
        gained = costs[live] - new_costs
        taken = live[better]
        parameters[taken], residuals[taken], slopes[taken], costs[taken] = (
            proposed[better],
            new_residuals[better],
            new_slopes[better],
            new_costs[better],
        )
        damping[live] = np.clip(damping[live] * np.where(better, 0.1, 10), *DAMPING)
        # A step that no longer changes the cost, better or worse, is rounding.
        settled = (np.abs(gained) <= SETTLED * costs[live]) | (costs[live] <= EXACT * x.size)
        live = live[~settled & (damping[live] < DAMPING[1])]
        if not live.size:
            break
    return parameters, costs


def _linearised(
    x: np.ndarray, log_losses: np.ndarray, parameters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return residuals log L^ - log L (k, n) and their derivatives by m, s, b (k, n, 3)."""
    middle, slope, constant = (parameters[:, [index]] for index in range(3))
    # A step with b above the loss gives no curve. Its cost is not finite, so it is refused.
    with np.errstate(all="ignore"):
        top = np.exp(middle)
        exponent = slope * top / (top - constant)
        fall = np.exp(-exponent * x)
        loss = (top - constant) * fall + constant
        by_middle = fall * (top + exponent * constant * x)
        by_constant = 1 - fall * (1 + exponent * x)
        derivatives = np.stack([by_middle, -x * top * fall, by_constant], axis=2)
        return np.log(loss) - log_losses, derivatives / loss[:, :, None]


def _cost(residuals: np.ndarray, huber: float | None) -> np.ndarray:
    squares = residuals**2
    if huber is not None:
        size = np.abs(residuals)
        squares = np.where(size <= huber, squares, huber * (2 * size - huber))
    return squares.sum(axis=1)


def _step(
    residuals: np.ndarray,
    slopes: np.ndarray,
    damping: np.ndarray,
    parameters: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    huber: float | None,
) -> np.ndarray:
    """Return the damped Gauss-Newton step (k, 3).

    A parameter at its bound stays there if the step would cross the bound.
    """
    weighted = slopes
    if huber is not None:
        with np.errstate(divide="ignore"):
            weights = np.minimum(1.0, huber / np.abs(residuals))
        weighted = slopes * weights[:, :, None]
    gradient = np.einsum("kni,kn->ki", weighted, residuals)
    held = ((parameters <= lower) & (gradient > 0)) | ((parameters >= upper) & (gradient < 0))
    held |= lower == upper
    matrix = np.einsum("kni,knj->kij", weighted, slopes)
    matrix = np.where(held[:, :, None] | held[:, None, :], 0.0, matrix)
    diagonal = np.einsum("kii->ki", matrix)
    diagonal = np.where(held, 1.0, diagonal * (1 + damping[:, None]) + 1e-300)
    matrix[:, np.arange(3), np.arange(3)] = diagonal
    return np.linalg.solve(matrix, np.where(held, 0.0, -gradient)[:, :, None])[:, :, 0]
