"""The measures of a network on held-out images: loss, top-1 and top-5 accuracy."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn import functional as F

from feldspar.core.progress import progress
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.runtime.collectives import all_reduce_sum, rank, world_size
from feldspar.vision.images import LabelledImages
from feldspar.vision.loader import held_out_batches
from feldspar.vision.task import normalisation

TOP = (1, 5)


def measures(classes: int) -> list[str]:
    """Return the names of what ``measure`` returns for a network of that many classes."""
    return ["validation/loss", *(f"validation/top{k}" for k in tops_of(classes))]


def tops_of(classes: int) -> list[int]:
    """Return each k of the top-k accuracies that mean something among ``classes`` classes."""
    return [k for k in TOP if k == 1 or k < classes]


@torch.no_grad()
def measure(
    network: nn.Module,
    images: LabelledImages,
    recipe: VisionRecipe,
    resolution: int,
    batch_images: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
) -> dict[str, float]:
    """Return ``validation/loss`` (mean cross-entropy), ``validation/top1`` and ``top5`` (shares).

    Among fewer than five classes top-5 is not measured. The network's mode is as before. Each of
    several processes measures its part of the images, and all of them return the whole.
    """
    was_training = network.training
    network.eval()
    normalise = normalisation(recipe).to(device)
    tops = tops_of(recipe.model.classes)
    loss, right = 0.0, dict.fromkeys(tops, 0)
    own = range(rank(), len(images), world_size())
    batches = held_out_batches(
        images, resolution, recipe.evaluation.crop, batch_images, recipe.runtime.workers, own
    )
    with progress("validate", len(own), "images") as advance:
        for pixels, labels in batches:
            labels = labels.to(device)
            with autocast():
                logits = network(normalise(pixels.to(device)))
            logits = logits.float()
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            ranked = logits.topk(max(tops)).indices == labels[:, None]
            for k in tops:
                right[k] += int(ranked[:, :k].sum())
            advance(len(labels))
    network.train(was_training)
    totals = all_reduce_sum([loss, *map(float, right.values())])
    return {
        name: total / len(images)
        for name, total in zip(measures(recipe.model.classes), totals, strict=True)
    }
