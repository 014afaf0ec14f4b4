"""The weights that a run on images starts with: another run's, or those that the authors published.

A classifier of other classes starts anew; everything else must fit.
"""

from pathlib import Path

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.recipe.sections.start_from import StartFromRun, StartFromScratch
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.authors import read_authors_weights
from feldspar.vision.load import load_vision_run
from feldspar.vision.network_cost import shapes_of
from feldspar.vision.pyramid import ReversiblePyramid
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.weights import copy_weights

CLASSIFIER = "classifier."


@torch.no_grad()
def start_network(network: RevBiFPN, recipe: VisionRecipe) -> None:
    """Replace the initial weights and statistics by those that ``start_from`` names.

    Averaged weights are taken from a run that has them. Raises UserError where shapes differ.
    """
    source = recipe.start_from
    if isinstance(source, StartFromScratch):
        return
    if isinstance(source, StartFromRun):
        weights = load_vision_run(Path(source.path), source.checkpoint).network.state_dict()
    else:
        weights = read_authors_weights(source.path, network)
    _take(network, weights, f"start_from: {source.path}")
    say(f"starting from the weights of {source.path}")


@torch.no_grad()
def load_pretrained(network: ReversiblePyramid, path: Path) -> None:
    """Replace weights and statistics by those of a run folder or of a file of the authors.

    Raises UserError where they are of another network.
    """
    if path.is_dir():
        weights = load_vision_run(path).network.state_dict()
    else:
        weights = read_authors_weights(path, shapes_of(network.settings), "pretrained")
    _take(network, weights, f"pretrained: {path}")


def _take(network: ReversiblePyramid, weights: dict[str, Tensor], source: str) -> None:
    """Copy each tensor of a whole network that ``network`` has, except another's classifier."""
    own = network.state_dict()
    bias = f"{CLASSIFIER}bias"
    classes = [len(tensors[bias]) for tensors in (own, weights) if bias in tensors]
    anew = len(set(classes)) > 1
    kept = {name: into for name, into in own.items() if not (anew and name.startswith(CLASSIFIER))}
    copy_weights(weights, kept, source)
    parts = {name.partition(".")[0] for name in own}
    extra = {name for name in weights if name.partition(".")[0] in parts} - set(own)
    if extra:
        raise UserError(f"{source} holds {min(extra)}, which the network lacks")
    if anew:
        say(f"the classifier starts anew: {classes[0]} classes in place of {classes[1]}")
