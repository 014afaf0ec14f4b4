"""Semantic segmentation: logits of each pixel, what is ignored, and rebuilt activations."""

import torch
from torch.nn import functional as F

from feldspar.recipe.sections.detection import SegmentationTask
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.detection.examples import IGNORED
from feldspar.vision.detection.segmenter import Segmenter
from tests.vision.detection.scenes import SMALL

TASK = SegmentationTask(type="segmentation", width=8)


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(2)
    images = torch.randn(2, 1, 24, 32, generator=chance)
    classes = torch.randint(0, SMALL.classes + 1, (2, 24, 32), generator=chance)
    classes[0, :10] = IGNORED
    return images, classes


def test_the_loss_is_the_mean_over_counted_pixels_of_each_image() -> None:
    segmenter = Segmenter(SMALL, TASK).eval()
    images, classes = scene()
    logits = segmenter.logits(images)
    assert logits.shape == (2, SMALL.classes + 1, 24, 32)
    expected = [
        F.cross_entropy(own[None], truth[None], ignore_index=IGNORED)
        for own, truth in zip(logits, classes, strict=True)
    ]
    torch.testing.assert_close(segmenter(images, classes), torch.stack(expected).sum())
    nothing = segmenter(images, torch.full_like(classes, IGNORED))
    assert nothing.item() == 0.0


def test_rebuilt_activations_give_the_gradients_of_stored_ones() -> None:
    found = []
    memories: tuple[ActivationMemory, ...] = ("store", "reversible", "recompute")
    for memory in memories:
        segmenter = Segmenter(SMALL, TASK, memory, seed=1)
        segmenter(*scene()).backward()
        found.append([own.grad for own in segmenter.parameters()])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert one is not None and other is not None and torch.equal(one, other)
