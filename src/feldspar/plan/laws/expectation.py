"""The loss that a named law expects for a recipe. A law is refused where it does not hold."""

import math
from collections.abc import Mapping
from typing import Any

from feldspar.core.errors import UserError
from feldspar.plan.laws.fitted_law import FittedLaw
from feldspar.plan.laws.law import Basis, ComputeLaw
from feldspar.plan.laws.law_basis import basis_by_shards
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.tokens import HuggingFaceTokenizer

DATA_SETS = {"pile": "the Pile, test"}
"""The text that a law's losses are measured on, by the source's name in the shipped recipes."""
CALIBRATED = 10
"""Beyond this multiple of the fitted runs' FLOPs, intervals are not reliable."""
SAME_RATIO = 0.1
"""Largest relative difference in tokens per parameter from the fitted runs."""


def expected_loss(
    recipe: Recipe,
    flops: Mapping[str, float],
    law: ComputeLaw,
    stated_flops: float | None = None,
) -> dict[str, Any]:
    """Return the loss and 95 % interval of new runs at the recipe's FLOPs, as plain values.

    ``flops`` are the plan's, by convention. A paper's own count is none of them: then they must be
    stated. Raises UserError for another convention, data set or tokenizer than the law's.
    """
    convention = law.basis.flops_convention
    if stated_flops is None and convention not in flops:
        raise UserError(
            f"--law: {law.name} uses its paper's own count of FLOPs, which no convention of "
            "the plan reproduces",
            found=", ".join(f"{value:.4g} by {name}" for name, value in flops.items()),
            do="give the run's FLOPs by that count with --law-flops",
        )
    if stated_flops is not None and convention in flops:
        raise UserError(
            f"--law-flops: {law.name} counts FLOPs by {convention}, which the plan knows",
            do="leave --law-flops out",
        )
    if stated_flops is not None and not (stated_flops > 0 and math.isfinite(stated_flops)):
        raise UserError("--law-flops: the FLOPs must be above 0", found=stated_flops)
    if isinstance(law, FittedLaw):
        basis = basis_by_shards(recipe, convention, law.metric)
    else:
        basis = Basis(convention, _data_set(recipe), _tokenizer(recipe))
    spent = flops[convention] if stated_flops is None else stated_flops
    low, high = law.interval(spent, basis)
    return {
        "law": law.name,
        "flops": spent,
        "convention": convention,
        "loss": law.loss(spent, basis),
        "interval": [low, high],
        "unit": law.basis.loss_unit,
        "data_set": law.basis.data_set,
        "source": law.source,
        "note": law.note,
    }


def expectation_warnings(law: ComputeLaw, flops: float, tokens_per_parameter: float) -> list[str]:
    """List warnings where the law is used far from the runs that it was fitted to."""
    found = []
    least, most = law.fitted_flops
    factor = max(flops / most, least / flops)
    if factor > CALIBRATED:
        found.append(
            f"expected loss: {flops:.3g} FLOPs are {factor:.3g} times away from the runs that "
            f"{law.name} was fitted to; its interval is not calibrated there"
        )
    usual = law.tokens_per_parameter
    if usual is not None and abs(tokens_per_parameter / usual - 1) > SAME_RATIO:
        found.append(
            f"expected loss: {law.name} was fitted to runs of {usual:g} tokens per parameter, and "
            f"this one has {tokens_per_parameter:.3g}"
        )
    return found


def _data_set(recipe: Recipe) -> str:
    names = sorted(recipe.corpus.training_sources) if recipe.corpus is not None else []
    if len(names) == 1 and names[0] in DATA_SETS:
        return DATA_SETS[names[0]]
    return " + ".join(names) or "the recipe's shards"


def _tokenizer(recipe: Recipe) -> str:
    tokenizer = recipe.tokenizer
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer.path
    return "that of the shards" if tokenizer is None else tokenizer.type
