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
from feldspar.vision.revbifpn import RevBiFPN

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
    own = network.state_dict()
    anew = weights[f"{CLASSIFIER}bias"].shape != own[f"{CLASSIFIER}bias"].shape
    for name, tensor in own.items():
        if not (anew and name.startswith(CLASSIFIER)):
            _copy(weights.get(name), tensor, name, str(source.path))
    if len(weights) > len(own):
        extra = min(set(weights) - set(own))
        raise UserError(f"start_from: {source.path} holds {extra}, which the network lacks")
    say(f"starting from the weights of {source.path}")
    if anew:
        count = len(weights[f"{CLASSIFIER}bias"])
        say(f"the classifier starts anew: {recipe.model.classes} classes in place of {count}")


def _copy(found: Tensor | None, into: Tensor, name: str, path: str) -> None:
    if found is None or found.shape != into.shape:
        raise UserError(
            f"start_from: {path} does not fit the network at {name}",
            found="absent" if found is None else tuple(found.shape),
            allowed=str(tuple(into.shape)),
        )
    into.copy_(found)
