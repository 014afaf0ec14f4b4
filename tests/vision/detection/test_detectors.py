"""torchvision's detectors over RevBiFPN: necks, levels, and gradients of rebuilt activations."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.recipe.sections.detection import DetectionTask
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.detection.detectors import Detector, anchor_sizes
from feldspar.vision.detection.pyramid import HighResolutionNeck, PyramidBackbone
from tests.vision.detection.scenes import SMALL

pytest.importorskip("torchvision")

PIXELS = 48


def small_task(**given: Any) -> DetectionTask:
    """A task with few channels, anchors and regions."""
    small: dict[str, Any] = {
        "width": 8,
        "head_width": 16,
        "proposals": (20, 10),
        "sampled_anchors": 16,
    }
    small |= {"sampled_regions": 8} | ({"width": 32} if given.get("head") == "fcos" else {})
    return DetectionTask(type="detection", **small | given)


def scenes(with_masks: bool) -> tuple[Tensor, ...]:
    """Three images: two objects, one object, and none."""
    chance = torch.Generator().manual_seed(1)
    images = torch.randn(3, 1, PIXELS, PIXELS, generator=chance)
    boxes = torch.tensor([[[4.0, 4, 20, 24], [24, 20, 44, 40]], [[8, 8, 30, 30], [0, 0, 0, 0]]])
    boxes = torch.cat([boxes, torch.zeros(1, 2, 4)])
    labels = torch.tensor([[1, 2], [2, 0], [0, 0]])
    masks = torch.zeros(3, 2, PIXELS, PIXELS, dtype=torch.uint8)
    for image, number in ((0, 0), (0, 1), (1, 0)):
        left, top, right, bottom = boxes[image, number].int().tolist()
        masks[image, number, top:bottom, left:right] = 1
    return (images, boxes, labels, masks) if with_masks else (images, boxes, labels)


def gradients(task: DetectionTask, memory: ActivationMemory) -> tuple[float, list[Tensor]]:
    """Loss and gradients of one step, with the same drawn anchors and regions."""
    detector = Detector(SMALL, task, memory, seed=3)
    torch.manual_seed(5)
    loss = detector(*scenes(task.has_masks))
    loss.backward()
    found = [parameter.grad for parameter in detector.parameters()]
    assert all(gradient is not None for gradient in found), "every weight learns"
    return loss.item(), [gradient for gradient in found if gradient is not None]


@pytest.mark.parametrize("neck", ["fpn", "hrfpn"])
@pytest.mark.parametrize("head", ["faster_rcnn", "mask_rcnn", "retinanet", "fcos"])
def test_rebuilt_activations_give_the_gradients_of_stored_ones(head: str, neck: str) -> None:
    """Bit for bit, on the grid of fixed-point streams; with a negative image in the batch."""
    task = small_task(head=head, neck=neck, neck_norm=head == "retinanet")
    stored, rebuilt = gradients(task, "store"), gradients(task, "reversible")
    assert stored[0] == rebuilt[0] and stored[0] > 0
    assert all(map(torch.equal, stored[1], rebuilt[1]))


@pytest.mark.parametrize("head", ["faster_rcnn", "mask_rcnn", "retinanet", "fcos"])
def test_what_is_found_has_the_form_of_torchvision(head: str) -> None:
    task = small_task(head=head, detections=7)
    detector = Detector(SMALL, task, seed=3).eval()
    with torch.no_grad():
        found = detector.detect(scenes(False)[0])
    assert len(found) == 3
    for own in found:
        count = len(own["scores"])
        assert count <= 7 and own["boxes"].shape == (count, 4)
        assert all(1 <= label <= SMALL.classes for label in own["labels"].tolist())
        if task.has_masks:
            assert own["masks"].shape == (count, 1, PIXELS, PIXELS)


def test_the_pyramid_is_a_backbone_of_torchvision() -> None:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    backbone = PyramidBackbone(SMALL, "hrfpn", width=8)
    levels = backbone(torch.randn(2, 1, 32, 64))
    assert {name: tuple(level.shape) for name, level in levels.items()} == {
        "0": (2, 8, 8, 16),
        "1": (2, 8, 4, 8),
        "pool": (2, 8, 2, 4),
    }
    assert backbone.strides == (4, 8, 16) and backbone.out_channels == 8
    detector = FasterRCNN(
        backbone,
        num_classes=3,
        rpn_anchor_generator=AnchorGenerator(((16,), (32,), (64,)), ((1.0,),) * 3),
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 7, 2),
        image_mean=[0.5],
        image_std=[0.5],
        min_size=64,
    )
    objects = {"boxes": torch.tensor([[1.0, 2, 20, 30]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(1, 40, 50)], [objects])
    assert all(loss.isfinite() for loss in losses.values())


def parameters_of(convolution: torch.nn.Module) -> list[Tensor]:
    """Weight and bias."""
    return list(convolution.parameters())


def test_the_high_resolution_neck_joins_all_streams_in_each_level() -> None:
    torch.manual_seed(0)
    neck = HighResolutionNeck((3, 5), 4)
    streams = {"0": torch.randn(1, 3, 8, 8), "1": torch.randn(1, 5, 4, 4)}
    levels = neck(streams)
    upsampled = F.interpolate(streams["1"], scale_factor=2, mode="bilinear")
    joined = F.conv2d(torch.cat([streams["0"], upsampled], 1), *parameters_of(neck.join))
    for index, (name, level) in enumerate(levels.items()):
        side = 2**index
        means = joined.unfold(2, side, side).unfold(3, side, side).mean((-1, -2))
        expected = F.conv2d(means, *parameters_of(neck.levels[index]), padding=1)
        torch.testing.assert_close(level, expected, msg=name)


@pytest.mark.parametrize("head", ["faster_rcnn", "mask_rcnn", "retinanet", "fcos"])
def test_images_keep_their_size_in_training_and_measuring(head: str) -> None:
    detector = Detector(SMALL, small_task(head=head))
    seen: list[tuple[int, ...]] = []
    detector.pyramid.body.stem.register_forward_pre_hook(
        lambda stem, given: seen.append(tuple(given[0].shape[2:]))
    )
    detector(*scenes(detector.has_masks))
    with torch.no_grad():
        detector.eval().detect(scenes(False)[0])
    assert seen == [(PIXELS, PIXELS)] * 2


def test_anchors_follow_the_strides_where_the_recipe_gives_none() -> None:
    backbone = PyramidBackbone(SMALL, width=8)
    assert anchor_sizes(backbone, small_task()) == (32, 64, 128)
    assert anchor_sizes(backbone, small_task(head="retinanet")) == (16, 32, 64)
    assert anchor_sizes(backbone, small_task(head="fcos")) == (4, 8, 16)
    assert anchor_sizes(backbone, small_task(anchor_sizes=(9, 10, 11))) == (9, 10, 11)


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before() -> None:
    torch.manual_seed(1)
    one = Detector(SMALL, small_task(), seed=4).state_dict()
    before = torch.get_rng_state()
    other = Detector(SMALL, small_task(), seed=4).state_dict()
    assert torch.equal(torch.get_rng_state(), before), "the generator of the program is not moved"
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    third = Detector(SMALL, small_task(), seed=5).state_dict()
    assert not any(torch.equal(own, third[name]) for name, own in one.items() if "fc6.w" in name)
