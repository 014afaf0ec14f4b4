"""The network of a recipe whose images have objects: its start, and a pass of its shapes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.recipe.sections.detection import DetectionTask, SegmentationTask
from feldspar.recipe.sections.start_from import StartFromRun, StartFromScratch
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.authors import read_authors_weights
from feldspar.vision.detection.detectors import BOX_CELLS, MASK_CELLS, Detector
from feldspar.vision.detection.segmenter import Segmenter
from feldspar.vision.feature_network import FeatureNetwork
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.weights import copy_weights

ObjectNetwork = Detector | Segmenter


def object_network(recipe: VisionRecipe, seed: int = 0) -> ObjectNetwork:
    """Return the detector or segmenter of a recipe, with initial values of a seed.

    Raises SetupError where torchvision is needed and not installed.
    """
    memory, task = recipe.runtime.activation_memory, recipe.task
    if isinstance(task, DetectionTask):
        return Detector(recipe.model, task, memory, seed)
    assert isinstance(task, SegmentationTask), "its images have objects"
    return Segmenter(recipe.model, task, memory, seed)


def body_of(network: ObjectNetwork) -> FeatureNetwork:
    """Return the network's backbone, without neck and head."""
    return network.pyramid.body if isinstance(network, Detector) else network.body


@torch.no_grad()
def start_from_weights(network: ObjectNetwork, recipe: VisionRecipe) -> None:
    """Replace initial values by those that ``start_from`` names.

    Of the authors' weights, and of a run that classifies, the backbone is taken; of a run of the
    same task everything. Raises UserError for a tensor of another shape, and for a run of another
    task.
    """
    source = recipe.start_from
    if isinstance(source, StartFromScratch):
        return
    if isinstance(source, StartFromRun):
        from feldspar.vision.load import load_vision_run

        other = load_vision_run(Path(source.path), source.checkpoint).network
        weights = other.state_dict()
        if type(other) is type(network):
            copy_weights(weights, network.state_dict(), f"start_from: {source.path}")
            say(f"starting from the weights of {source.path}")
            return
        if not isinstance(other, RevBiFPN):
            raise UserError(f"start_from: {source.path} is a run of another task")
    else:
        weights = read_authors_weights(source.path, RevBiFPN(recipe.model))
    copy_weights(weights, body_of(network).state_dict(), f"start_from: {source.path}")
    say(f"starting from the backbone of {source.path}; neck and head start anew")


class PlannedPass(nn.Module):
    """A pass with the shapes of a training step, for a network on the meta device.

    It maps images to a loss without meaning. Of a head that looks at regions it computes as many as
    training samples; which regions, and what they are compared with, depends on values and is left
    out.
    """

    def __init__(self, network: ObjectNetwork, task: DetectionTask | SegmentationTask) -> None:
        super().__init__()
        self.network = network
        self._task = task

    def forward(self, images: Tensor) -> Tensor:
        """Return the loss of images (b, c, h, w)."""
        if isinstance(self.network, Segmenter):
            classes = images.new_empty(images[:, 0].shape, dtype=torch.int64)
            return self.network(images, classes)
        levels = list(self.network.pyramid(images).values())
        task = self._task
        inner: Any = self.network.network
        assert isinstance(task, DetectionTask), "a detector has such a task"
        if task.head in ("retinanet", "fcos"):
            return _sum(inner.head(levels).values())
        outputs = [*inner.rpn.head(levels)]
        regions, heads = len(images) * task.sampled_regions, inner.roi_heads
        pooled = levels[0].mean((2, 3), keepdim=True).repeat(task.sampled_regions, 1, 1, 1)
        read = heads.box_head(pooled.expand(regions, -1, BOX_CELLS, BOX_CELLS).contiguous())
        outputs += [heads.box_predictor(read)]
        if task.has_masks:
            positive = pooled[: max(regions // 4, 1)]
            masks = positive.expand(-1, -1, MASK_CELLS, MASK_CELLS).contiguous()
            outputs += [[heads.mask_predictor(heads.mask_head(masks))]]
        return _sum(outputs)


def _sum(outputs: Any) -> Tensor:
    """Return the sum of all entries of tensors, in lists or not."""
    if isinstance(outputs, Tensor):
        return outputs.sum()
    return torch.stack([_sum(item) for item in outputs]).sum()
