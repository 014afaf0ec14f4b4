"""The parameters and rows that a phase trains. A tied head counts as one tensor."""

from collections.abc import Sequence
from dataclasses import replace

from feldspar.core.errors import UserError
from feldspar.core.rows import ModelShapes, ParameterRow, Role, chosen_rows
from feldspar.model.low_rank import ROLES as LORA_ROLES
from feldspar.model.rows import model_shapes
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.phases import TrainableRows
from feldspar.sparsity.density import densities

VOCABULARY_ROLES = (Role.EMBEDDING, Role.OUTPUT)
"""Roles of parameters that have a row for each token."""


def held_shapes(recipe: Recipe) -> ModelShapes:
    """Return the rows that a run holds in memory: those of the model, and the matrices of LoRA.

    A checkpoint has the matrices of LoRA only where its phase has LoRA.
    """
    return model_shapes(recipe.model, recipe.soft_prompt_length, recipe.lora)


def lora_rows(recipe: Recipe, phase_index: int) -> tuple[ParameterRow, ...]:
    """Return the rows of the matrices of LoRA that a phase trains. Raises UserError where a mask of
    the phase drops entries of a matrix that LoRA updates."""
    if recipe.phases[phase_index].lora is None:
        return ()
    shapes, key = held_shapes(recipe), f"phases.{phase_index}.lora"
    found = tuple(row for row in shapes.rows if row.role in LORA_ROLES)
    targets = {_updated_by(row) for row in found}
    masked = densities(recipe.sparsity(phase_index), shapes.rows, f"phases.{phase_index}.sparsity")
    broken = next((name for name in masked if name in targets), None)
    if broken is not None:
        raise UserError(
            f"{key}.targets: {broken} is masked in this phase, and the update of LoRA, which is "
            "dense, would fill the masked entries",
            do="choose targets without masks, or drop the masks: sparsity: dense",
        )
    return found


def trained_rows(
    recipe: Recipe, rows: Sequence[ParameterRow], phase_index: int
) -> tuple[ParameterRow, ...]:
    """Return the rows of parameters that a phase trains; a soft prompt only where the phase has
    one.

    With LoRA these are its matrices, and of the model's ``rows`` only those that ``trainable``
    names. Where the head is tied, the embedding is the output too and both roles must be named.
    Raises UserError for an entry that matches nothing, for a tied embedding named alone, for new
    rows of parameters that have no row for each token, and for a matrix that LoRA updates too.
    """
    settings, key = recipe.phases[phase_index], f"phases.{phase_index}.trainable"
    updates = lora_rows(recipe, phase_index)
    if updates and settings.trainable == "all":
        return updates
    if not settings.soft_prompt_length:
        rows = [row for row in rows if row.role is not Role.PROMPT]
    chosen = settings.trainable
    if isinstance(chosen, TrainableRows):
        chosen = chosen.parameters
    if chosen != "all" and recipe.model.tied_embeddings:
        chosen = _tied(chosen, key)
    trained = chosen_rows(rows, chosen, key)
    targets = {_updated_by(row) for row in updates}
    doubled = next((row.name for row in trained if row.name in targets), None)
    if doubled is not None:
        raise UserError(
            f"{key}: {doubled} would be trained itself and by lora, which freezes it",
            do="name it in one of trainable and lora.targets",
        )
    if settings.trains_new_rows_only:
        other = next((row for row in trained if row.role not in VOCABULARY_ROLES), None)
        if other is not None:
            raise UserError(
                f"{key}: rows: new trains rows of tokens, but {other.name} has none",
                allowed=[role.value for role in VOCABULARY_ROLES],
            )
    return (*trained, *updates)


def trained_with_lora(
    recipe: Recipe, rows: Sequence[ParameterRow], phase_index: int
) -> tuple[ParameterRow, ...] | None:
    """Return the rows that a phase with LoRA trains. None for a phase without LoRA."""
    if recipe.phases[phase_index].lora is None:
        return None
    return trained_rows(recipe, rows, phase_index)


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
        replace(row, shape=(min(new_tokens, row.shape[0]), *row.shape[1:]))
        if row.role in VOCABULARY_ROLES
        else row
        for row in trained
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


def _updated_by(row: ParameterRow) -> str:
    """Return the name of the weight that a matrix of LoRA updates."""
    return f"{row.name.rsplit('.', 2)[0]}.weight"
