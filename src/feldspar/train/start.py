"""The start of a run: the weights of ``start_from``, adapted, and the first phase's masks."""

from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from feldspar.adapt.embeddings import Adaptation
from feldspar.core.differences import differences
from feldspar.core.errors import SetupError, UserError
from feldspar.core.files import sha256_of_file
from feldspar.core.progress import progress, say
from feldspar.core.streams import numpy_stream, stream_seed
from feldspar.model.decoder import Decoder
from feldspar.model.layers import SOFT_PROMPT
from feldspar.model.low_rank import low_rank_names
from feldspar.parametrization.application import entries_by_name, initial_values
from feldspar.plan.summary import Plan
from feldspar.recipe.load import LoadedRecipe
from feldspar.recipe.problems import recipe_error
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.position_scaling import NoScaling, PositionScaling
from feldspar.recipe.sections.sparsity import (
    AnySparsity,
    Dense,
    GradualSparsity,
    without_moves,
)
from feldspar.recipe.sections.start_from import StartFromHuggingFace, StartFromRun, StartFromScratch
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.collectives import gather_json, on_each
from feldspar.runtime.shards import Box, copy_part, local_part
from feldspar.runtime.tensor_file import header_of
from feldspar.sparsity.density import kept_counts
from feldspar.sparsity.masks import Masks
from feldspar.sparsity.saved import digest_of_masks, masks_from_state
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.train.adaptation import adapt_to_shards, read_source, require_same_tokens
from feldspar.train.load import find_checkpoint, scaling_from_state


def start_checkpoint(recipe: Recipe) -> Checkpoint | None:
    """Return the checkpoint that ``start_from`` names, verified; None where it names no run."""
    start = recipe.start_from
    if not isinstance(start, StartFromRun):
        return None
    return find_checkpoint(Path(start.path), start.checkpoint)


def parent_record(recipe: Recipe, start: Checkpoint | None) -> dict[str, Any] | None:
    """Return the SHA-256 of each file of the weights in ``start_from``; None from scratch.

    Everyone who has the parent can compare them. ``tokens`` is the position of the checkpoint
    ``start`` of a run.
    """
    if isinstance(recipe.start_from, StartFromScratch):
        return None
    if start is not None:
        return start.identity()
    path = Path(recipe.start_from.path)
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    with progress(f"digests of the weights of {path}", unit=""):
        return {"tokens": None, "weights": {file.name: sha256_of_file(file) for file in files}}


def with_carried(loaded: LoadedRecipe, start: Checkpoint | None) -> LoadedRecipe:
    """Return the recipe; ``start_from`` fills settings that its first phase leaves open.

    That is the sparsity of a run's checkpoint ``start``, and the scaling of positions of a run or a
    Hugging Face folder. Raises UserError when a later phase then changes it in a way that is
    refused.
    """
    recipe = loaded.recipe
    update: dict[str, object] = {}
    if start is not None and recipe.phases[0].sparsity is None:
        carried = masks_from_state(start.state, str(start.folder))
        update["sparsity"] = without_moves(carried.settings)
    if recipe.phases[0].position_scaling is None:
        scaling = carried_scaling(recipe, start)
        if not isinstance(scaling, NoScaling):
            update["position_scaling"] = scaling
    if not update:
        return loaded
    first = recipe.phases[0].model_copy(update=update)
    changed = recipe.model_copy(update={"phases": (first, *recipe.phases[1:])})
    try:
        Recipe.model_validate_json(changed.model_dump_json(by_alias=True))
    except ValidationError as error:
        raise recipe_error(error, Recipe, loaded.tree, loaded.origins) from None
    return replace(loaded, recipe=changed)


def carried_scaling(recipe: Recipe, start: Checkpoint | None) -> PositionScaling:
    """Return the scaling of positions of the model in ``start_from``."""
    if start is not None:
        return scaling_from_state(start.state)
    source = recipe.start_from
    # Only a run that begins needs the folder, and it reports a missing one itself.
    if isinstance(source, StartFromHuggingFace) and Path(source.path).is_dir():
        from feldspar.huggingface.import_folder import read_description

        return read_description(Path(source.path)).scaling
    return NoScaling()


def starting_masks(plan: Plan, start: Checkpoint | None, decoder: Decoder) -> Masks:
    """Return the first phase's masks: those of ``start`` if any, else masks drawn from the seed.

    ``decoder`` holds the weights that the run starts with, or this process's part of them. Raises
    UserError where the recipe would replace the masks of ``start`` by others, RunError where they
    do not belong to its weights.
    """
    wanted = plan.recipe.sparsity(0)
    if start is not None and wanted != Dense():
        carried = masks_from_state(start.state, str(start.folder))
        if carried.tensors and without_moves(carried.settings) != without_moves(wanted):
            raise UserError(
                "phases.0.sparsity: the run that start_from names has other masks",
                where=str(start.folder),
                found=_compare_masks(carried.settings, wanted),
                allowed="the same (its masks stay), dense (they are dropped), or no such key",
            )
        _require_finished_pruning(carried, plan, str(start.folder))
        if carried.tensors:
            placed, weights = place_masks(carried, decoder), dict(decoder.named_parameters())
            on_each(lambda: placed.require_zeros(weights, str(start.folder)))
            return carried.moving_by(wanted)
    with progress("drawing masks", unit=""):
        return Masks.draw(wanted, plan.shapes.rows, plan.recipe.seed)


def _compare_masks(theirs: AnySparsity, ours: AnySparsity) -> str:
    """Return the settings in which masks differ, with the values of a run and of the recipe."""
    there, here = (dict(without_moves(settings)) for settings in (theirs, ours))
    return "; ".join(f"{key} there {old}, here {new}" for key, old, new in differences(there, here))


def _require_finished_pruning(masks: Masks, plan: Plan, where: str) -> None:
    """Raise UserError for masks of a gradual phase that keep more entries than they will."""
    counts = kept_counts(masks.settings, plan.shapes.rows)
    gradual = isinstance(masks.settings, GradualSparsity)
    for name, mask in masks.tensors.items() if gradual else ():
        if int(mask.sum()) > counts[name]:
            raise UserError(
                f"start_from: the pruning of {name} is not finished at this checkpoint",
                where=where,
                found=f"{int(mask.sum()):,} kept entries",
                allowed=f"{counts[name]:,}",
                do="name a later checkpoint, or drop the masks: phases.0.sparsity: dense",
            )


def require_same_masks(masks: Masks) -> None:
    """Raise SetupError, on each process, when the processes hold different masks."""
    if len(set(gather_json(digest_of_masks(masks)))) > 1:
        raise SetupError(
            "the processes have drawn different masks from the same seed",
            do="install the same version of NumPy for all of them",
        )


def place_masks(masks: Masks, model: nn.Module) -> Masks:
    """Return the part of each mask that belongs to this process's part of the parameter."""
    placed = {
        name: part_of(masks.tensors[name], parameter)
        for name, parameter in model.named_parameters()
        if name in masks.tensors
    }
    return replace(masks, tensors=placed)


def part_of(whole: Tensor, parameter: Tensor) -> Tensor:
    """Return the part of a whole tensor at this process's part of the parameter, on its device."""
    local, box = local_part(parameter)
    return whole[box.within(Box((0,) * whole.dim(), tuple(whole.shape)))].to(local.device)


@torch.no_grad()
def begin_weights(
    decoder: Decoder, plan: Plan, shards: ShardSet, start: Checkpoint | None
) -> Adaptation | None:
    """Fill the decoder with the weights of ``start_from``, adapted if the recipe asks for it.

    Tensors that the source lacks (all of them where the run starts from scratch) get initial
    values. Each tensor is read or drawn as a whole, and this process's part of it is kept. Weights
    of another model are converted from its multipliers to the recipe's, under which it computes
    what it did; equal multipliers leave every bit. A soft prompt of the first phase begins here,
    unless the weights bring one. Returns what was adapted. Raises UserError when names or shapes
    differ, and where the weights' tokenizer is another than that of ``shards``.
    """
    weights, adaptation = _starting_tensors(plan, shards, start)
    entries, anew = entries_by_name(decoder, plan.table), low_rank_names(decoder) | {SOFT_PROMPT}
    if weights:
        _require_fit(plan, weights, {n: e.shape for n, e in entries.items() if n not in anew}, anew)
    # The largest first, while this process holds little else: a whole tensor is read beside it.
    parameters = sorted(decoder.named_parameters(), key=lambda item: -item[1].numel())
    title = f"weights of {_source_path(plan)}" if weights else "initial weights"
    with progress(title, sum(value.numel() for _, value in parameters), "parameters") as advance:
        for name, parameter in parameters:
            if name in weights:
                copy_part(weights[name], parameter)
            else:
                own = initial_values(entries[name], plan.table.init, plan.recipe.seed)
                copy_part(own, parameter)
            advance(parameter.numel())
    if SOFT_PROMPT not in weights:
        begin_soft_prompt(decoder, plan.recipe, 0, shards.vocab_size)
    if weights:
        say(f"starting from the weights of {_source_path(plan)}")
    for line in () if adaptation is None else adaptation.lines():
        say(line)
    return adaptation


def _starting_tensors(
    plan: Plan, shards: ShardSet, start: Checkpoint | None
) -> tuple[Mapping[str, Tensor], Adaptation | None]:
    """Return the tensors of ``start_from``, none where the run starts from scratch."""
    settings = plan.recipe.start_from
    if isinstance(settings, StartFromScratch):
        return {}, None
    source = read_source(settings, start)
    _require_same_streams(plan, source.reversible)
    weights = source.state
    if source.forward is not None:
        from feldspar.huggingface.multipliers import WithMultipliers

        weights = WithMultipliers(weights, plan.recipe.model, source.forward, plan.table.forward)
    if plan.recipe.adapt is not None:
        return adapt_to_shards(weights, source, plan, shards)
    if start is not None:
        require_same_tokens(source, shards)
    return weights, None


def _require_same_streams(plan: Plan, theirs: str | None) -> None:
    """Raise UserError where the weights would compute another function in the recipe's model."""
    ours = getattr(plan.recipe.model.reversible, "type", None)
    if theirs != ours:
        raise UserError(
            "model.reversible: the layers of the model in start_from read other streams, so that "
            "its weights fit but would compute another function",
            where=_source_path(plan),
            found=f"{theirs or 'false'} there, {ours or 'false'} in the recipe",
            do=f"set model.reversible={theirs or 'false'}, or train from scratch",
        )


def _require_fit(
    plan: Plan,
    weights: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    optional: Container[str],
) -> None:
    """Raise UserError unless the weights have these names and shapes; no tensor is read."""
    path = _source_path(plan)
    unknown = sorted(name for name in weights if name not in shapes and name not in optional)
    if unknown:
        raise UserError(
            f"start_from: {path} holds {unknown[0]}, which the model lacks",
            do="give the recipe's model the same shape",
        )
    for name, shape in shapes.items():
        found = header_of(weights, name).shape if name in weights else None
        if found != shape:
            raise UserError(
                f"start_from: {path} does not fit the model at {name}",
                found="absent" if found is None else found,
                allowed=str(shape),
            )


def _source_path(plan: Plan) -> str:
    settings = plan.recipe.start_from
    return "scratch" if isinstance(settings, StartFromScratch) else settings.path


@torch.no_grad()
def begin_soft_prompt(decoder: Decoder, recipe: Recipe, phase_index: int, n_tokens: int) -> None:
    """Copy random rows of the current token table into the soft prompt, if the phase asks for it.

    Nothing happens unless the phase is the first that has a soft prompt: later ones go on with it.
    The ``normal`` values are there since the model was built. ``n_tokens`` rows are real tokens.
    """
    settings = recipe.phases[phase_index].soft_prompt
    earlier = any(phase.soft_prompt_length for phase in recipe.phases[:phase_index])
    if decoder.soft_prompt is None or settings is None or settings.length == 0 or earlier:
        return
    if settings.initialisation == "normal":
        return
    table = decoder.token_embedding.weight
    whole = table.full_tensor() if isinstance(table, DTensor) else table
    stream = numpy_stream(recipe.seed, "model.soft_prompt")
    chosen = stream.choice(n_tokens, settings.length, replace=n_tokens < settings.length)
    rows = whole[torch.from_numpy(chosen).to(whole.device)]
    copy_part(rows, decoder.soft_prompt.weight)


@torch.no_grad()
def begin_low_rank(decoder: Decoder, plan: Plan, phase_index: int) -> None:
    """Draw the matrices A of LoRA for the phases from this one on; B becomes zero.

    The values are others than those of an earlier phase, so that updates which are merged one
    after the other do not share their rows.
    """
    table, names = plan.tables[phase_index], low_rank_names(decoder)
    seed = stream_seed(plan.recipe.seed, "lora", str(phase_index))
    for name, parameter in decoder.named_parameters():
        if name in names:
            values = initial_values(table.entry(name), table.init, seed)
            copy_part(values, parameter)
