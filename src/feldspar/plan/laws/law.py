"""Laws of loss, each bound to its definition of FLOPs and losses.

A law holds only for the data set, tokenizer, unit and count of FLOPs that it was fitted with, so it
refuses any other. For example, the law of Cerebras-GPT misses its own models by up to 3.8 % if
FLOPs are counted as 6 N D.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple

from feldspar.core.errors import UserError, nearest

NORMAL_95 = 1.959964
"""Standard deviations around the mean that hold 95 % of a normal distribution."""


class Point(NamedTuple):
    """Training FLOPs of a run, and its loss."""

    flops: float
    loss: float


@dataclass(frozen=True)
class PowerLaw:
    """L(f) = (f / scale_flops)^(-exponent) + constant, with an exponent above 0."""

    exponent: float
    scale_flops: float
    constant: float = 0.0

    def loss(self, flops: float) -> float:
        """Return the loss at ``flops`` training FLOPs. Raises UserError unless ``flops`` is
        positive.
        """
        if not (flops > 0 and math.isfinite(flops)):
            raise UserError("flops: must be positive", found=flops)
        return math.exp(-self.exponent * math.log(flops / self.scale_flops)) + self.constant


@dataclass(frozen=True)
class Basis:
    """The meaning of a law's numbers. Two bases are the same when all four fields are."""

    flops_convention: str
    """The count of FLOPs: a convention of ``plan.flops``, or the name of a paper's own count."""
    data_set: str
    """The text that the loss is measured on."""
    tokenizer: str
    """The definition of a token, such as the name of a tokenizer."""
    loss_unit: str = "nats per token"
    """The unit of the loss."""

    def require(self, other: "Basis", law: str) -> None:
        """Raise UserError when ``other`` is another basis than this one, which belongs to
        ``law``.
        """
        own, given = asdict(self), asdict(other)
        wrong = [name for name in own if own[name] != given[name]]
        if wrong:
            words = " and ".join(name.replace("_", " ").replace("flops", "FLOPs") for name in wrong)
            raise UserError(
                f"the law {law} holds for another {words}",
                found=", ".join(given[name] for name in wrong),
                allowed=", ".join(own[name] for name in wrong),
                do="give numbers of the law's own basis, or fit a law to your own runs: "
                "feldspar scaling fit RUN... --out FOLDER",
            )


@dataclass(frozen=True)
class ComputeLaw:
    """A law of loss over training FLOPs, with the basis that it holds for."""

    name: str
    curve: PowerLaw
    basis: Basis
    relative_std: float
    """Standard deviation of observed losses around the law, as a share of the loss."""
    fitted_flops: tuple[float, float]
    """The least and the most FLOPs of the fitted runs."""
    source: str
    note: str = ""
    tokens_per_parameter: float | None = None
    """Tokens per parameter of all fitted runs. None: they differ."""

    def loss(self, flops: float, basis: Basis) -> float:
        """Return the loss at ``flops``, which are on ``basis``. Raises UserError for
        another basis.
        """
        self.basis.require(basis, self.name)
        return self.curve.loss(flops)

    def interval(self, flops: float, basis: Basis) -> tuple[float, float]:
        """Return the interval of 95 % of new runs, by the scatter of the fitted runs."""
        loss = self.loss(flops, basis)
        factor = math.exp(NORMAL_95 * self.relative_std)
        return loss / factor, loss * factor

    def extrapolation(self, flops: float) -> float:
        """Return ``flops`` over the most FLOPs of the fitted runs. At 10 intervals are not
        calibrated.
        """
        return flops / self.fitted_flops[1]


class Optimum(NamedTuple):
    """The best split of a budget, and its predicted loss."""

    parameters: float
    tokens: float
    loss: float


@dataclass(frozen=True)
class ParametricLaw:
    """L(N, D) = E + A / N^alpha + B / D^beta (Chinchilla, 2203.15556, equation 2).

    N is all parameters, D training tokens, and a budget is counted as 6 N D.
    """

    name: str
    irreducible: float
    parameter_factor: float
    parameter_exponent: float
    token_factor: float
    token_exponent: float
    basis: Basis
    source: str
    verified: bool
    """True if the constants were checked against the source. If not, results are rough."""

    def loss(self, parameters: float, tokens: float) -> float:
        """Return the loss of a model of ``parameters`` after ``tokens``.

        Raises UserError unless both are positive.
        """
        if not (parameters > 0 and tokens > 0):
            raise UserError(
                "parameters and tokens: must be positive",
                found=f"{parameters:g} and {tokens:g}",
            )
        return (
            self.irreducible
            + self.parameter_factor / parameters**self.parameter_exponent
            + self.token_factor / tokens**self.token_exponent
        )

    def optimum(self, flops: float) -> Optimum:
        """Return the split with the least loss under 6 N D = ``flops``.

        N = G (C/6)^(beta/(alpha+beta)), D = C/(6 N), G = (alpha A / (beta B))^(1/(alpha+beta)).
        Raises UserError unless ``flops`` is positive.
        """
        if not (flops > 0 and math.isfinite(flops)):
            raise UserError("flops: must be positive", found=flops)
        alpha, beta = self.parameter_exponent, self.token_exponent
        ratio = alpha * self.parameter_factor / (beta * self.token_factor)
        parameters = ratio ** (1 / (alpha + beta)) * (flops / 6) ** (beta / (alpha + beta))
        tokens = flops / (6 * parameters)
        return Optimum(parameters, tokens, self.loss(parameters, tokens))


CEREBRAS_GPT_POINTS = tuple(
    Point(flops, loss)
    for flops, loss in (
        (2.6e18, 2.608),
        (1.3e19, 2.349),
        (6.1e19, 2.181),
        (2.8e20, 1.997),
        (1.1e21, 1.834),
        (6.3e21, 1.704),
        (2.3e22, 1.572),
    )
)
"""Training FLOPs and Pile test loss of the seven models, 111M to 13B (2304.03208)."""

CEREBRAS_GPT_MUP_POINTS = tuple(
    Point(point.flops, loss)
    for point, loss in zip(CEREBRAS_GPT_POINTS, (2.588, 2.359, 2.155, 1.984, 1.846), strict=False)
)
"""The same for the five muP models, 111M to 2.7B."""

COMPUTE_LAWS = {
    law.name: law
    for law in (
        ComputeLaw(
            name="cerebras-gpt",
            curve=PowerLaw(exponent=0.0737, scale_flops=5.984e22, constant=0.5066),
            basis=Basis("cerebras-gpt", "the Pile, test", "gpt2"),
            relative_std=0.0066,
            fitted_flops=(CEREBRAS_GPT_POINTS[0].flops, CEREBRAS_GPT_POINTS[-1].flops),
            source="Cerebras-GPT, 2304.03208",
            note="The five muP models lie 0.43 % below it on average. The paper's own FLOPs exceed "
            "the convention 'detailed' by 7 to 14 %.",
            tokens_per_parameter=20.0,
        ),
    )
}
"""Published laws of loss over FLOPs, by name."""

_CHINCHILLA = Basis("6P", "MassiveText", "SentencePiece of 32,000 tokens")
PARAMETRIC_LAWS = {
    law.name: law
    for law in (
        ParametricLaw(
            name="chinchilla-refit",
            irreducible=1.8172,
            parameter_factor=482.01,
            parameter_exponent=0.3478,
            token_factor=2085.43,
            token_exponent=0.3658,
            basis=_CHINCHILLA,
            source="a replication of Chinchilla's third approach, constants from memory",
            verified=False,
        ),
        ParametricLaw(
            name="chinchilla",
            irreducible=1.69,
            parameter_factor=406.4,
            parameter_exponent=0.34,
            token_factor=410.7,
            token_exponent=0.28,
            basis=_CHINCHILLA,
            source="Chinchilla, 2203.15556, as first published, constants from memory",
            verified=False,
        ),
    )
}
"""Laws of loss over parameters and tokens, by name. None is verified."""


def compute_law(name: str) -> ComputeLaw:
    """Return the published law of that name. Raises UserError for an unknown one."""
    if name not in COMPUTE_LAWS:
        raise _unknown(name, COMPUTE_LAWS)
    return COMPUTE_LAWS[name]


def parametric_law(name: str) -> ParametricLaw:
    """Return the parametric law of that name. Raises UserError for an unknown one."""
    if name not in PARAMETRIC_LAWS:
        raise _unknown(name, PARAMETRIC_LAWS)
    return PARAMETRIC_LAWS[name]


def law_named(name: str) -> ComputeLaw | ParametricLaw:
    """Return the law of that name, of either kind. Raises UserError for an unknown one."""
    known: dict[str, ComputeLaw | ParametricLaw] = {**COMPUTE_LAWS, **PARAMETRIC_LAWS}
    if name not in known:
        raise _unknown(name, known)
    return known[name]


def _unknown(name: str, known: Iterable[str]) -> UserError:
    hint = nearest(name, known)
    return UserError(
        f"there is no law {name!r}" + (f"; did you mean {hint!r}?" if hint else ""), allowed=known
    )
