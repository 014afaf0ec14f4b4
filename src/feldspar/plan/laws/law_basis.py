"""The basis of laws fitted to a recipe's runs: the meaning of their FLOPs and losses."""

from feldspar.core.errors import UserError
from feldspar.core.files import digest_of
from feldspar.core.manifest import read_manifest
from feldspar.plan.laws.law import Basis
from feldspar.plan.summary import Plan
from feldspar.recipe.root import Recipe

CONVENTION = "6P+attention"
"""The default count of FLOPs. It includes attention, which is a large part of small models."""
METRIC = "validation/loss"
"""The loss that laws are fitted to by default."""
DIGITS = 12
TOKENIZER_FILE = "tokenizer/tokenizer.json"


def recipe_basis(
    recipe: Recipe, convention: str, metric: str, *, shards: str, tokenizer: str
) -> Basis:
    """Return the basis of a recipe's runs. ``shards`` and ``tokenizer`` are digests.

    The name of the data set covers the data that is read, the data that is held out, and the
    context length of the loss.
    """
    mixtures = [phase.model_dump_json(include={"mixture"}) for phase in recipe.phases]
    held_out = recipe.evaluation.model_dump_json(include={"holdout"})
    context = str(recipe.context_length(recipe.phases[-1]))
    return Basis(
        flops_convention=convention,
        data_set=f"{metric} of {digest_of(shards, *mixtures, held_out, context)[:DIGITS]}",
        tokenizer=tokenizer[:DIGITS],
        loss_unit="bits per byte" if metric.endswith("/bits_per_byte") else "nats per token",
    )


def basis_by_shards(recipe: Recipe, convention: str, metric: str) -> Basis:
    """Return the basis that the recipe's runs would have.

    Raises UserError unless the recipe's shards exist.
    """
    if recipe.shards is None or not recipe.shards.path.is_dir():
        raise UserError(
            "shards.path: a fitted law holds for the shards of its runs, and these are not there",
            do="build the shards first: feldspar tokens build RECIPE",
        )
    manifest = read_manifest(recipe.shards.path, "shards")
    return recipe_basis(
        recipe,
        convention,
        metric,
        shards=manifest.digest,
        tokenizer=manifest.files[TOKENIZER_FILE].sha256,
    )


def planned_flops(plan: Plan, convention: str) -> float:
    """Return the training FLOPs of a planned run. Raises UserError for an unknown convention."""
    flops = plan.flops()
    if convention not in flops:
        raise UserError(f"convention: FLOPs are not counted by {convention!r}", allowed=flops)
    return flops[convention]
