"""A trained run read back: the decoder with its weights and multipliers, recipe, tokenizer."""

from dataclasses import dataclass
from pathlib import Path

import torch

from feldspar.core.errors import UserError
from feldspar.model.decoder import Decoder
from feldspar.model.shapes import model_shapes
from feldspar.parametrization.application import set_forward_multipliers
from feldspar.parametrization.tables import ForwardMultipliers, forward_multipliers
from feldspar.recipe.load import LoadedRecipe, load_recipe
from feldspar.recipe.root import Recipe
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.run_folder import RunFolder

TOKENIZER_FOLDER = "tokenizer"


@dataclass(frozen=True)
class LoadedRun:
    """A run at one of its checkpoints."""

    path: Path
    loaded: LoadedRecipe
    decoder: Decoder
    forward: ForwardMultipliers
    checkpoint: Checkpoint

    @property
    def recipe(self) -> Recipe:
        """The recipe that the run was trained by."""
        return self.loaded.recipe

    @property
    def tokenizer_folder(self) -> Path:
        """The run's own copy of its tokenizer."""
        return self.path / TOKENIZER_FOLDER


def is_run_folder(path: Path) -> bool:
    """Whether ``path`` holds a run."""
    return RunFolder(path).read_recipe() is not None


def load_run(path: Path, checkpoint: str = "last") -> LoadedRun:
    """Read a run folder; ``checkpoint`` is ``last`` or a number of tokens.

    Raises UserError when there is no run or no such checkpoint, RunError when all are damaged.
    """
    if not is_run_folder(path):
        raise UserError(f"{path} is no run folder: it holds no recipe.yaml")
    loaded = load_recipe(str(path / "recipe.yaml"))
    chosen = find_checkpoint(path, checkpoint)
    shapes = model_shapes(loaded.recipe.model)
    forward = forward_multipliers(loaded.recipe.parametrization, shapes)
    decoder = Decoder(loaded.recipe.model)
    chosen.fill("model", dict(decoder.named_parameters()))
    set_forward_multipliers(decoder, forward)
    return LoadedRun(path, loaded, decoder.eval(), forward, chosen)


def find_checkpoint(path: Path, checkpoint: str) -> Checkpoint:
    """A checkpoint of the run in ``path``, verified."""
    store = CheckpointStore(RunFolder(path).checkpoints)
    if checkpoint == "last":
        newest = store.newest_valid()
        if newest is None:
            raise UserError(f"{path} holds no checkpoint yet", do="train it first")
        return newest
    for candidate in store.all():
        if checkpoint.isdigit() and candidate.tokens == int(checkpoint):
            problems = candidate.problems()
            if problems:
                raise UserError(f"the checkpoint {candidate.folder} is damaged: {problems[0]}")
            return candidate
    raise UserError(
        f"{path} holds no checkpoint at {checkpoint} tokens",
        allowed=["last", *(str(item.tokens) for item in store.all())],
    )


def weights_of_run(path: Path, checkpoint: str) -> dict[str, torch.Tensor]:
    """The model tensors of a run's checkpoint, by parameter name."""
    return find_checkpoint(path, checkpoint).read_model()
