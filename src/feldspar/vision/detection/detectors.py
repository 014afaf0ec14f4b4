"""torchvision's detectors over the pyramid, which is their backbone.

Images come normalised and in one size, so that torchvision's own resizing and normalisation are
left out.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from feldspar.core.errors import missing_extra
from feldspar.core.streams import stream_seed
from feldspar.recipe.sections.detection import DetectionTask
from feldspar.recipe.sections.vision import RevBiFPNSettings
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.detection.pyramid import PyramidBackbone, level_names
from feldspar.vision.detection.unchanged import UnchangedImages

RATIOS = (0.5, 1.0, 2.0)
"""Height by width of anchors."""
OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""Scales of retinanet's anchors, as multiples of a level's size (1708.02002, section 4)."""
ANCHOR_STRIDES = {"faster_rcnn": 8, "mask_rcnn": 8, "retinanet": 4, "fcos": 1}
"""Side of a level's anchors in strides, where the recipe gives none."""
BOX_CELLS, MASK_CELLS = 7, 14
"""Side, in cells, of what the heads read of a region."""
SAMPLING_RATIO = 2


class Detector(nn.Module):
    """A detector of torchvision; images are tensors of one size, objects are padded tensors."""

    def __init__(
        self,
        settings: RevBiFPNSettings,
        task: DetectionTask,
        memory: ActivationMemory = "reversible",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.has_masks = task.has_masks
        backbone = PyramidBackbone(settings, task.neck, task.width, memory, seed, task.neck_norm)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "vision.heads"))
            self.network = torchvision_detector(backbone, task)
            self.network.transform = UnchangedImages(cast(nn.Module, self.network.transform))

    @property
    def pyramid(self) -> PyramidBackbone:
        """The backbone with its neck."""
        return cast(PyramidBackbone, self.network.backbone)

    @property
    def memory(self) -> ActivationMemory:
        """The name of what is kept for the backward pass: store, recompute or reversible."""
        return self.pyramid.body.memory

    def forward(
        self, images: Tensor, boxes: Tensor, labels: Tensor, masks: Tensor | None = None
    ) -> Tensor:
        """Return the summed loss of images (b, c, h, w), that of an image being their mean.

        Objects are boxes (b, n, 4) as left, top, right, bottom in pixels, labels (b, n) from 1 on
        and 0 where there is no object, and masks (b, n, h, w).
        """
        targets = []
        for index, own in enumerate(labels):
            there = own > 0
            target = {"boxes": boxes[index, there], "labels": own[there]}
            if masks is not None:
                target["masks"] = masks[index, there]
            targets.append(target)
        losses: dict[str, Tensor] = self.network(list(images), targets)
        return torch.stack([loss.float() for loss in losses.values()]).sum() * len(images)

    def detect(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return of each image boxes (n, 4), labels (n,), scores (n,) and masks (n, 1, h, w).

        Masks are probabilities, and there with a head that learns them. The detector is in
        evaluation mode.
        """
        return self.network(list(images))


def torchvision_detector(backbone: PyramidBackbone, task: DetectionTask) -> nn.Module:
    """Return torchvision's detector for a task over a backbone, with its own transform.

    Raises SetupError where torchvision is not installed.
    """
    try:
        from torchvision.models import detection
        from torchvision.models.detection.anchor_utils import AnchorGenerator
    except ImportError:
        raise missing_extra("torchvision", "detection") from None
    settings = backbone.body.settings
    classes = settings.classes
    sizes = anchor_sizes(backbone, task)
    if task.head in ("faster_rcnn", "mask_rcnn"):
        return _two_stage(detection, backbone, task, sizes)
    if task.head == "retinanet":
        scaled = tuple(tuple(round(size * scale) for scale in OCTAVES) for size in sizes)
        generator = AnchorGenerator(scaled, (RATIOS,) * len(sizes))
        make = detection.RetinaNet
    else:
        generator = AnchorGenerator(tuple((size,) for size in sizes), ((1.0,),) * len(sizes))
        make = detection.FCOS
    # Both count the background as a class, which no output is trained to be.
    return make(
        backbone, classes + 1, anchor_generator=generator, detections_per_img=task.detections
    )


def anchor_sizes(backbone: PyramidBackbone, task: DetectionTask) -> tuple[int, ...]:
    """Return the side of each level's anchors in pixels, finest level first."""
    if task.anchor_sizes is not None:
        return task.anchor_sizes
    return tuple(ANCHOR_STRIDES[task.head] * stride for stride in backbone.strides)


def _two_stage(
    detection: Any,
    backbone: PyramidBackbone,
    task: DetectionTask,
    sizes: tuple[int, ...],
) -> nn.Module:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    settings, width = backbone.body.settings, backbone.out_channels
    names, classes = level_names(settings), settings.classes + 1
    training, measuring = task.proposals
    given: dict[str, Any] = {
        "rpn_anchor_generator": AnchorGenerator(
            tuple((size,) for size in sizes), (RATIOS,) * len(sizes)
        ),
        "rpn_pre_nms_top_n_train": training,
        "rpn_post_nms_top_n_train": training,
        "rpn_pre_nms_top_n_test": measuring,
        "rpn_post_nms_top_n_test": measuring,
        "rpn_batch_size_per_image": task.sampled_anchors,
        "box_batch_size_per_image": task.sampled_regions,
        "box_detections_per_img": task.detections,
        "box_roi_pool": MultiScaleRoIAlign(names, BOX_CELLS, SAMPLING_RATIO),
        "box_head": TwoMLPHead(width * BOX_CELLS**2, task.head_width),
        "box_predictor": FastRCNNPredictor(task.head_width, classes),
    }
    if task.head == "faster_rcnn":
        return detection.FasterRCNN(backbone, **given)
    heads = detection.mask_rcnn
    layers = (width,) * 4
    return detection.MaskRCNN(
        backbone,
        mask_roi_pool=MultiScaleRoIAlign(names, MASK_CELLS, SAMPLING_RATIO),
        mask_head=heads.MaskRCNNHeads(width, layers, 1),
        mask_predictor=heads.MaskRCNNPredictor(width, width, classes),
        **given,
    )
