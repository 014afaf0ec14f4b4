"""The parameters and rows that a phase trains. A tied head counts as one tensor."""

from collections.abc import Sequence
from dataclasses import replace

from feldspar.core.errors import UserError
from feldspar.core.rows import ParameterRow, Role, chosen_rows
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.phases import TrainableRows

VOCABULARY_ROLES = (Role.EMBEDDING, Role.OUTPUT)
"""Roles of parameters that have a row for each token."""


def trained_rows(
    recipe: Recipe, rows: Sequence[ParameterRow], phase_index: int
) -> tuple[ParameterRow, ...]:
    """Return the rows of parameters that a phase trains; a soft prompt only where the phase has
    one.

    Where the head is tied, the embedding is the output too and both roles must be named. Raises
    UserError for an entry that matches nothing, for a tied embedding named alone, and for new rows
    of parameters that have no row for each token.
    """
    settings, key = recipe.phases[phase_index], f"phases.{phase_index}.trainable"
    if not settings.soft_prompt_length:
        rows = [row for row in rows if row.role is not Role.PROMPT]
    chosen = settings.trainable
    if isinstance(chosen, TrainableRows):
        chosen = chosen.parameters
    if chosen != "all" and recipe.model.tied_embeddings:
        chosen = _tied(chosen, key)
    trained = chosen_rows(rows, chosen, key)
    if settings.trains_new_rows_only:
        other = next((row for row in trained if row.role not in VOCABULARY_ROLES), None)
        if other is not None:
            raise UserError(
                f"{key}: rows: new trains rows of tokens, but {other.name} has none",
                allowed=[role.value for role in VOCABULARY_ROLES],
            )
    return trained


def trained_parts(
    recipe: Recipe, trained: Sequence[ParameterRow], phase_index: int
) -> tuple[ParameterRow, ...]:
    """Return the part of the ``trained`` parameters that has moments.

    This is the new tokens' rows where only they are trained. Where the recipe does not say how many
    tokens are new, all rows count.
    """
    new_tokens = declared_new_tokens(recipe)
    if new_tokens is None or not recipe.phases[phase_index].trains_new_rows_only:
        return tuple(trained)
    return tuple(
        replace(row, shape=(min(new_tokens, row.shape[0]), *row.shape[1:])) for row in trained
    )


def declared_new_tokens(recipe: Recipe) -> int | None:
    """Return how many tokens the recipe's tokenizer adds to its base, or None if unknown."""
    return getattr(getattr(recipe.tokenizer, "with_", None), "new_tokens", None)


def _tied(chosen: tuple[str, ...], key: str) -> tuple[str, ...]:
    named = {role for role in VOCABULARY_ROLES if role in chosen}
    if named and len(named) < len(VOCABULARY_ROLES):
        raise UserError(
            f"{key}: the head is tied, embedding and output are one tensor: whatever trains one "
            "trains both",
            do="name both, [embedding, output], or set model.tied_embeddings: false",
        )
    return tuple(name for name in chosen if name != Role.OUTPUT)
