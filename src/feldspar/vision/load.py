"""A trained run on images, read back with its averaged weights where there are any."""

from dataclasses import dataclass
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.recipe.load import LoadedVisionRecipe, load_vision_recipe
from feldspar.recipe.recorded import is_run
from feldspar.recipe.sections.vision import ClassificationTask
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.runtime.checkpoint import MODEL, Checkpoint
from feldspar.train.average import AVERAGE, WeightAverage, tensors_of
from feldspar.train.load import find_checkpoint
from feldspar.vision.detection.networks import ObjectNetwork, object_network
from feldspar.vision.revbifpn import RevBiFPN

CLASSES_KEY = "classes"
"""The key of the classes in the state of a checkpoint."""


@dataclass(frozen=True)
class LoadedVisionRun:
    """A run at one of its checkpoints."""

    path: Path
    loaded: LoadedVisionRecipe
    network: RevBiFPN | ObjectNetwork
    checkpoint: Checkpoint

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(self.checkpoint.state[CLASSES_KEY])


def load_vision_run(path: Path, checkpoint: str = "last", averaged: bool = True) -> LoadedVisionRun:
    """Read a run folder; ``checkpoint`` is ``last`` or a number of images.

    ``averaged`` weights are those of the recipe's average, where it keeps one. Raises UserError
    when there is no such run or checkpoint, RunError when all are damaged.
    """
    if not is_run(path):
        raise UserError(f"{path} is not a run folder: it holds no recipe.yaml and no checkpoint")
    chosen = find_checkpoint(path, checkpoint)
    loaded = load_vision_recipe(str(path.resolve()), recorded=chosen.recipe)
    network = network_of(loaded.recipe)
    tensors = tensors_of(network)
    if loaded.recipe.average_weights is not None:
        other = WeightAverage(network, loaded.recipe.average_weights.decay).model
        tensors |= tensors_of(other, AVERAGE)
        chosen.fill(MODEL, tensors)
        network = other if averaged else network
    else:
        chosen.fill(MODEL, tensors)
    return LoadedVisionRun(path, loaded, network.eval(), chosen)


def network_of(recipe: VisionRecipe) -> RevBiFPN | ObjectNetwork:
    """Return the network of a recipe's task, with the initial values of seed 0."""
    if isinstance(recipe.task, ClassificationTask):
        return RevBiFPN(recipe.model, recipe.runtime.activation_memory)
    return object_network(recipe)
