"""The length of each phase, and its batch as stretches of equal steps."""

from collections.abc import Mapping

from feldspar.core.errors import UserError
from feldspar.plan.batches import Stretch, batch_levels, fill_up, lay_out
from feldspar.recipe.amounts import Unit
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.batch import Batch, ConstantBatch
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch
from feldspar.recipe.sections.phases import PhaseSettings
from feldspar.recipe.sections.vision import ImageBatch, VisionPhaseSettings
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.tokens.sequences.resolve import MeasuredTokens, begin_tokens_of


def lay_out_phases(
    recipe: Recipe | VisionRecipe, parameters: int, source_sizes: Mapping[str, int] | None
) -> list[tuple[Stretch, ...]]:
    """Return the stretches of each phase, with positions from the phase's start.

    Raises UserError for a length below one step, and for a change of batch without optimizer_state.
    """
    laid_out: list[tuple[Stretch, ...]] = []
    contexts = recipe.context_lengths
    for index, (settings, context) in enumerate(zip(recipe.phases, contexts, strict=True)):
        key = f"phases.{index}"
        levels = batch_levels(settings.batch, context, f"{key}.batch")
        sizes = _pass_over_examples(settings, index, source_sizes)
        limit = _length_limit(settings, context, parameters, sizes, key)
        stretches = lay_out(levels, context, **limit)
        if isinstance(settings.batch, NoiseScaleBatch):
            quantum = settings.batch.quantum_sequences
            stretches = fill_up(stretches, quantum, context, limit["limit_length"])
        if not stretches:
            raise UserError(
                f"{key}.length: {settings.length} is less than one step of "
                f"{levels[0].sequences * context:,} {recipe.position_unit}"
            )
        if laid_out and settings.optimizer_state is None:
            before = recipe.phases[index - 1].batch
            _require_same_batch(before, laid_out[-1][-1], settings.batch, stretches[0], key)
        laid_out.append(stretches)
    return laid_out


def _require_same_batch(
    batch_before: Batch | ImageBatch,
    before: Stretch,
    batch_after: Batch | ImageBatch,
    after: Stretch,
    key: str,
) -> None:
    """Raise UserError where a phase changes the length of a step without setting optimizer_state.

    Moments and learning rates belong to a number of tokens for each step, so the user must decide.
    Two batches of equal tokens may differ by the rounding to whole sequences.
    """
    if isinstance(batch_before, NoiseScaleBatch):
        raise UserError(
            f"{key}.optimizer_state: not set, though the batch at the end of the phase before "
            "is unknown in advance",
            allowed="keep, fresh",
        )
    asked = [
        batch.tokens if isinstance(batch, ConstantBatch) and batch.tokens else item.step_length
        for batch, item in ((batch_before, before), (batch_after, after))
    ]
    if before.step_length != after.step_length and asked[0] != asked[1]:
        raise UserError(
            f"{key}.batch: a step of this phase has {after.step_length:,} tokens, one of the "
            f"phase before {before.step_length:,}",
            do=f"keep the number of tokens, or set {key}.optimizer_state: keep (or fresh)",
        )


def _pass_over_examples(
    settings: PhaseSettings | VisionPhaseSettings,
    index: int,
    source_sizes: Mapping[str, int] | None,
) -> Mapping[str, int] | None:
    """Return the sizes that an epoch counts: those of the phase's examples, else of the sources."""
    if not isinstance(settings, PhaseSettings) or settings.examples is None:
        return source_sizes
    measured = source_sizes.examples if isinstance(source_sizes, MeasuredTokens) else {}
    tokens = measured.get(index, settings.examples.tokens)
    return None if tokens is None else {"examples": tokens}


def _length_limit(
    settings: PhaseSettings | VisionPhaseSettings,
    context_length: int,
    parameters: int,
    source_sizes: Mapping[str, int] | None,
    key: str,
) -> dict[str, int]:
    amount = settings.length
    match amount.unit:
        case Unit.STEPS:
            return {"limit_steps": int(amount.value)}
        case Unit.TOKENS | Unit.IMAGES:
            return {"limit_length": int(amount.value)}
        case Unit.SEQUENCES:
            return {"limit_length": int(amount.value) * context_length}
        case Unit.TOKENS_PER_PARAMETER:
            return {"limit_length": int(amount.value * parameters)}
        case _:
            of_text = isinstance(settings, PhaseSettings)
            if of_text and settings.mixture != "natural":
                raise UserError(f"{key}.length: {amount} needs mixture: natural")
            if of_text and settings.examples is not None and not source_sizes:
                raise UserError(
                    f"{key}.length: {amount} needs the number of {settings.examples.type}",
                    do=f"put {settings.examples.path.name} and the shards where the recipe names "
                    f"them, or declare {key}.data.tokens",
                )
            if not source_sizes:
                raise UserError(
                    f"{key}.length: {amount} needs the size of the sources",
                    do="build the shards, or declare corpus.sources.NAME.tokens",
                )
            text = int(amount.value * sum(source_sizes.values()))
            own = context_length - begin_tokens_of(source_sizes)
            return {"limit_length": text * context_length // own}
