"""Load a trained run: the decoder with its weights and multipliers, recipe, tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from torch import Tensor

from feldspar.core.errors import FeldsparError, RunError, UserError
from feldspar.core.progress import tokens_of_plan
from feldspar.evaluate.text_model import TextModel
from feldspar.model.decoder import Decoder
from feldspar.model.low_rank import activate, add_low_rank, merge, remove_low_rank
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import set_forward_multipliers
from feldspar.parametrization.tables import ForwardMultipliers, forward_multipliers
from feldspar.recipe.load import LoadedRecipe, load_recipe
from feldspar.recipe.recorded import Recorded, is_run
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.model import SoftPromptSettings
from feldspar.recipe.sections.position_scaling import NoScaling, PositionScaling
from feldspar.recipe.sections.runtime import CheckpointSettings
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.run_folder import RunFolder
from feldspar.sparsity.density import sparsities
from feldspar.sparsity.masks import Masks
from feldspar.sparsity.saved import masks_from_state
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.train.data import open_shards, plan_loaded
from feldspar.train.examples import TEMPLATE_KEY
from feldspar.train.run_tokenizer import TOKENIZER_FOLDER, run_tokenizer

SCALING_KEY = "position_scaling"
"""The key of the shards' digest in a checkpoint's state."""


@dataclass(frozen=True)
class LoadedRun:
    """A run at one of its checkpoints."""

    path: Path
    loaded: LoadedRecipe
    decoder: Decoder
    forward: ForwardMultipliers
    checkpoint: Checkpoint
    masks: Masks
    """The masks of the checkpoint's phase. Empty where the phase is dense."""

    @property
    def recipe(self) -> Recipe:
        """The recipe that the run was trained by."""
        return self.loaded.recipe

    @property
    def soft_prompt(self) -> SoftPromptSettings | None:
        """Settings of the soft prompt in the checkpoint's phase. None without a soft prompt."""
        phase = self.recipe.phases[self.checkpoint.state["phase"]]
        return phase.soft_prompt if phase.soft_prompt_length else None

    @property
    def chat_template(self) -> str | None:
        """The chat template that conversations were read with; None: the tokenizer's own, if
        any."""
        return self.checkpoint.state.get(TEMPLATE_KEY)

    @property
    def tokenizer_folder(self) -> Path:
        """The run's own copy of its tokenizer."""
        return self.path / TOKENIZER_FOLDER

    @cached_property
    def planned_tokens(self) -> int | None:
        """Tokens that the recipe's phases read. None where that depends on absent data."""
        try:
            return plan_loaded(self.loaded).timeline.length
        except FeldsparError:
            return None

    @property
    def unfinished(self) -> str | None:
        """Return the progress of the checkpoint where the recipe has further steps; else None."""
        tokens, planned = self.checkpoint.position, self.planned_tokens
        if planned is None or tokens >= planned:
            return None
        return tokens_of_plan(tokens, planned)


def load_run(path: Path, checkpoint: str = "last") -> LoadedRun:
    """Load a run; ``checkpoint`` is ``last``, ``best`` or a number of tokens.

    Updates of LoRA are added to the weights. Raises UserError when there is no run or no such
    checkpoint. Raises RunError when all checkpoints are damaged, or when weights that masks drop
    are not zero.
    """
    run = load_updated_run(path, checkpoint)
    _make_plain(run.decoder)
    return run


def load_updated_run(path: Path, checkpoint: str = "last") -> LoadedRun:
    """Load a run like ``load_run``, with updates of LoRA beside the weights; they act.

    ``merge`` and ``remove_low_rank`` make a plain decoder of it.
    """
    if not is_run(path):
        raise UserError(f"{path} is not a run folder: it holds no recipe.yaml and no checkpoint")
    chosen = find_checkpoint(path, checkpoint)
    loaded = load_recipe(str(path.resolve()), recorded=chosen.recipe)
    run_tokenizer(path, chosen)
    prompt_length = loaded.recipe.soft_prompt_length
    shapes = model_shapes(loaded.recipe.model, prompt_length)
    forward = forward_multipliers(loaded.recipe.parametrization, shapes)
    decoder = _read_decoder(chosen, loaded.recipe)
    weights = dict(decoder.named_parameters())
    masks = masks_of_checkpoint(chosen, loaded.recipe)
    masks.require_zeros(weights, str(chosen.folder))
    set_forward_multipliers(decoder, forward)
    decoder.scale_positions(scaling_from_state(chosen.state))
    return LoadedRun(path, loaded, decoder.eval(), forward, chosen, masks)


def read_weights(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """Return the whole weights of a run at a checkpoint, with updates of LoRA added to them."""
    recorded = checkpoint.recipe
    if "lora" not in recorded.values["phases"][checkpoint.state["phase"]]:
        return checkpoint.read_model()
    run = checkpoint.folder.parent.parent
    recipe = load_recipe(str(run.resolve()), recorded=recorded).recipe
    decoder = _read_decoder(checkpoint, recipe)
    _make_plain(decoder)
    return {name: tensor.detach() for name, tensor in decoder.named_parameters()}


def held_out_shards(run: LoadedRun, folder: Path | None = None) -> ShardSet:
    """Open the shards of a run, to measure the run on their held-out data.

    ``folder`` is where they lie, by default where the run's recipe says. Raises UserError where
    they are absent, or are not those that the run was trained on.
    """
    named = run.recipe.shards
    if folder is None and named is not None and not named.path.is_dir():
        raise UserError(
            f"{run.path} was trained on shards in {named.path}, which does not exist",
            do="name their folder: feldspar evaluate RUN --shards SHARDS",
        )
    if folder is not None and not folder.is_dir():
        raise UserError(f"--shards: {folder} is no folder")
    shards = open_shards(run.recipe) if folder is None else ShardSet.open(folder)
    if shards.digest != run.checkpoint.state["shards"]:
        raise UserError(
            f"{shards.path} holds other shards than {run.path} was trained on: their held-out "
            "data may have been in training",
            do="restore the shards, or measure on text: feldspar evaluate RUN --text FILE",
        )
    return shards


def find_checkpoint(path: Path, checkpoint: str) -> Checkpoint:
    """Return a checkpoint of the run in ``path``, verified.

    ``checkpoint`` is ``last``, ``best`` or a number of tokens. Raises UserError where there is
    none.
    """
    store = CheckpointStore(RunFolder(path).checkpoints)
    if checkpoint in ("last", "best"):
        newest = store.newest_valid()
        if newest is None:
            raise UserError(f"{path} holds no checkpoint yet", do="train it first")
        if checkpoint == "last":
            return newest
        checkpoint = str(_best_position(path, newest.recipe))
    for candidate in store.all():
        if checkpoint.isdigit() and candidate.position == int(checkpoint):
            problems = candidate.problems()
            if problems:
                raise UserError(f"the checkpoint {candidate.folder} is damaged: {problems[0]}")
            return candidate
    raise UserError(
        f"{path} holds no checkpoint at {checkpoint} tokens",
        allowed=["last", *(str(item.position) for item in store.all())],
    )


def _best_position(path: Path, recorded: Recorded) -> int:
    """Return the position of a run's best checkpoint, by the rule with which the run keeps it."""
    settings = CheckpointSettings.model_validate(recorded.values["checkpoints"])
    store = CheckpointStore(RunFolder(path).checkpoints, settings)
    best, metric = store.best(), settings.keep.best
    if best is None:
        raise UserError(
            f"{path} keeps no best checkpoint: its recipe has no checkpoints.keep.best"
            if metric is None
            else f"{path} has no best checkpoint: none of them has the metric {metric}",
            where=str(recorded.place),
            allowed=["last", *(str(item.position) for item in store.all())],
        )
    return best.position


def scaling_from_state(state: Mapping[str, Any]) -> PositionScaling:
    """Return the scaling of positions in the phase of a checkpoint."""
    if SCALING_KEY not in state:
        return NoScaling()
    return TypeAdapter[PositionScaling](PositionScaling).validate_python(state[SCALING_KEY])


def masks_of_checkpoint(checkpoint: Checkpoint, recipe: Recipe) -> Masks:
    """Return the masks that a run of ``recipe`` has at a checkpoint.

    Raises RunError when they are damaged, or absent though the phase is sparse.
    """
    state = checkpoint.state
    masks = masks_from_state(state, str(checkpoint.folder))
    rows = model_shapes(recipe.model).rows
    if not masks.tensors and sparsities(recipe.sparsity(state["phase"]), rows):
        raise RunError(
            f"the checkpoint {checkpoint.folder} holds no masks, though its phase is sparse",
            do="restore it from a copy; zeros of the weights do not tell the masks",
        )
    return masks


def text_model_of(run: LoadedRun) -> TextModel:
    """Return the run's decoder, on its device, with the run's own tokenizer."""
    tokenizer = TextTokenizer.load(run.tokenizer_folder)
    if run.chat_template is not None:
        tokenizer = tokenizer.with_chat_template(run.chat_template)
    # Rows beyond the tokenizer's vocabulary took no part in training.
    return TextModel(run.decoder, tokenizer, tokenizer.vocab_size)


def _read_decoder(checkpoint: Checkpoint, recipe: Recipe) -> Decoder:
    """Return the decoder of a run of ``recipe`` with a checkpoint's weights and updates of LoRA.

    Multipliers and positions are left to the caller.
    """
    decoder = Decoder(recipe.model, recipe.soft_prompt_length)
    lora = recipe.phases[checkpoint.state["phase"]].lora
    if lora is not None:
        add_low_rank(decoder, lora)
        activate(decoder, True)
    checkpoint.fill("model", dict(decoder.named_parameters()))
    return decoder


def _make_plain(decoder: Decoder) -> None:
    """Add updates of LoRA to the weights."""
    merge(decoder)
    remove_low_rank(decoder)
