"""Order, pixels and targets of a run's steps; optimizers and the average against written sums."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from feldspar.core.errors import InternalError, UserError
from feldspar.parametrization.application import ParameterGroup
from feldspar.recipe.load import load_vision_recipe
from feldspar.recipe.sections.optimizer import RmsPropSettings, SgdSettings
from feldspar.recipe.sections.vision import AugmentationSettings
from feldspar.train.average import WeightAverage
from feldspar.train.optimizer import Optimizer
from feldspar.vision.data import open_images, open_split
from feldspar.vision.image_task import build_optimizer
from feldspar.vision.images import LabelledImages
from feldspar.vision.loader import (
    IMAGES_AT_ONCE,
    TrainingImages,
    held_out_batches,
    stacked,
)
from feldspar.vision.plan import plan_vision_recipe
from feldspar.vision.read_ahead import ReadAhead
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.task import (
    ClassificationLoss,
    ImageBatches,
    Normalisation,
    smoothed_targets,
)

PLAIN = ["augmentation={crop: centre}", "task.label_smoothing=0", "phases.0.resolution=24"]


def numbered(count: int) -> LabelledImages:
    """Images of one pixel that say which they are."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)
    return LabelledImages(("a",), np.zeros(count, dtype=np.int64), lambda index: pixels[index], "")


def test_every_epoch_holds_each_image_once_in_an_order_of_its_own() -> None:
    images = TrainingImages(numbered(50), AugmentationSettings(), seed=1)
    numbers = [int(images.read(position, 1)[0]) for position in range(150)]
    epochs = [numbers[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = TrainingImages(numbered(50), AugmentationSettings(), seed=2)
    assert [int(other.read(position, 1)[0]) for position in range(50)] != epochs[0]


def test_pixels_depend_on_positions_alone(recipe_file: Path) -> None:
    recipe = load_vision_recipe(str(recipe_file)).recipe
    train = open_split(recipe, "train")

    def batches(workers: int, starts: tuple[int, ...]) -> torch.Tensor:
        source = TrainingImages(train, recipe.augmentation, recipe.seed)
        loader = ReadAhead(source.read, workers, IMAGES_AT_ONCE)
        for start in starts:
            loader.request(range(start, start + 40), 16)
        taken = [stacked(loader.take()) for _ in starts]
        loader.close()
        return torch.cat([pixels for pixels, _ in taken])

    whole = batches(1, (0, 40, 80))
    assert torch.equal(whole, batches(7, (0, 40, 80)))
    assert torch.equal(whole[80:], batches(2, (80,)))


def test_the_loader_gives_what_was_asked_for_and_its_errors() -> None:
    def read(position: int, resolution: int) -> tuple[torch.Tensor, int]:
        if position == 70:
            raise UserError("image 70 cannot be read")
        return torch.full((1, resolution, resolution), position, dtype=torch.uint8), position

    loader = ReadAhead(read, workers=3, at_once=IMAGES_AT_ONCE)
    with pytest.raises(InternalError, match="without a request"):
        loader.take()
    loader.request(range(40), 2)
    loader.request(range(40, 80), 3)
    pixels, labels = stacked(loader.take())
    assert labels.tolist() == list(range(40))
    assert pixels.shape == (40, 1, 2, 2)
    assert torch.equal(pixels[:, 0, 0, 0], labels.to(torch.uint8))
    with pytest.raises(UserError, match="image 70"):
        loader.take()
    loader.close()


def test_held_out_images_come_in_their_order() -> None:
    batches = list(held_out_batches(numbered(23), 1, 1.0, 5, workers=2))
    assert [len(labels) for _, labels in batches] == [5, 5, 5, 5, 3]
    assert torch.cat([pixels for pixels, _ in batches]).flatten().tolist() == list(range(23))
    own = held_out_batches(numbered(23), 1, 1.0, 5, workers=2, numbers=range(1, 23, 2))
    assert [pixels.flatten().tolist() for pixels, _ in own] == [
        [1, 3, 5, 7, 9],
        [11, 13, 15, 17, 19],
        [21],
    ]
    assert not [*held_out_batches(numbered(2), 1, 1.0, 5, workers=1, numbers=range(2, 2))]


def test_a_step_holds_normalised_images_and_targets(recipe_file: Path) -> None:
    recipe = load_vision_recipe(str(recipe_file), [*PLAIN, "images.mean=[0.25]"]).recipe
    data = open_images(recipe)
    timeline = plan_vision_recipe(recipe, len(data.train)).timeline
    task = ImageBatches(recipe, data.train, torch.device("cpu"))
    seen: Counter[int] = Counter()
    tokens = 0
    while (step := timeline.next_step(tokens)) is not None:
        task.prefetch(step)
        assert task.prefetched
        ((images, targets),) = task.take()
        resolution = recipe.phases[step.phase.index].resolution
        assert images.shape == (step.sequences, 1, resolution, resolution)
        assert images.min() >= -0.5 and images.max() <= 1.5
        assert task.count((images, targets)) == step.sequences
        seen.update(targets.argmax(1).tolist())
        assert torch.equal(targets.sum(1), torch.ones(step.sequences))
        tokens = step.position_after
    task.close()
    # 72 images of the first phase, then twelve steps of 16.
    assert tokens == 72 + 192 and sum(seen.values()) == tokens
    assert set(seen) == {0, 1, 2}


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_the_parts_of_processes_make_up_the_step_of_one(recipe_file: Path, mixing: str) -> None:
    """Their images are mixed in the same pairs, whichever process holds the partner."""
    recipe = load_vision_recipe(str(recipe_file), [f"augmentation={{{mixing}: 1.0}}"]).recipe
    data = open_images(recipe)
    step = plan_vision_recipe(recipe, len(data.train)).timeline.next_step(72)
    assert step is not None

    def part(rank: int, world_size: int) -> tuple[torch.Tensor, ...]:
        batches = ImageBatches(recipe, data.train, torch.device("cpu"), rank, world_size)
        batches.prefetch(step)
        (taken,) = batches.take()
        batches.close()
        return taken

    whole, parts = part(0, 1), [part(rank, 4) for rank in range(4)]
    assert all(len(images) == step.sequences // 4 for images, _ in parts)
    for one, several in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(several), one)


def test_targets_and_normalisation() -> None:
    targets = smoothed_targets(torch.tensor([1, 0]), 4, 0.2)
    torch.testing.assert_close(
        targets, torch.tensor([[0.05, 0.85, 0.05, 0.05], [0.85, 0.05, 0.05, 0.05]])
    )
    normalise = Normalisation((0.5, 0.0), (0.25, 1.0))
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
    assert normalise(pixels).flatten().tolist() == [-2.0, 1.0]


def test_the_loss_is_cross_entropy_with_smoothed_labels() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 1])
    loss = ClassificationLoss(nn.Identity())(logits, smoothed_targets(labels, 4, 0.1))
    expected = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(loss, expected)


def steps_of(settings: SgdSettings | RmsPropSettings) -> list[torch.Tensor]:
    """A weight that decays and one that does not after each of four steps of made-up gradients."""
    weights = [nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2)]
    groups = [
        ParameterGroup((f"w{index}",), (weight,), 1.0, multiplier, 1.0, settings.only_rule)
        for index, (weight, multiplier) in enumerate(zip(weights, (1.0, 0.0), strict=True))
    ]
    optimizer = Optimizer(groups, settings)
    history = []
    for number in range(4):
        for weight in weights:
            weight.grad = torch.tensor([0.5, -1.0]) * (number + 1)
        optimizer.set_rates(0.1, settings.weight_decay)
        optimizer.step(optimizer.gradient_norm())
        history.append(torch.stack([weight.detach().clone() for weight in weights]))
    return history


def test_sgd_is_the_written_rule() -> None:
    for nesterov in (False, True):
        settings = SgdSettings(type="sgd", momentum=0.9, nesterov=nesterov, weight_decay=0.05)
        weight, buffer = torch.tensor([[1.0, -2.0]] * 2), torch.zeros(2, 2)
        for number, found in enumerate(steps_of(settings)):
            gradient = torch.tensor([0.5, -1.0]) * (number + 1)
            gradient = gradient + torch.tensor([[0.05], [0.0]]) * weight
            buffer = 0.9 * buffer + gradient
            weight = weight - 0.1 * (gradient + 0.9 * buffer if nesterov else buffer)
            torch.testing.assert_close(found, weight)


def test_rmsprop_is_the_written_rule() -> None:
    settings = RmsPropSettings(type="rmsprop", weight_decay=0.05)
    weight = torch.tensor([[1.0, -2.0]] * 2)
    square, buffer = torch.zeros(2, 2), torch.zeros(2, 2)
    for number, found in enumerate(steps_of(settings)):
        gradient = torch.tensor([0.5, -1.0]) * (number + 1)
        gradient = gradient + torch.tensor([[0.05], [0.0]]) * weight
        square = 0.9 * square + 0.1 * gradient**2
        buffer = 0.9 * buffer + gradient / (square.sqrt() + 1e-3)
        weight = weight - 0.1 * buffer
        torch.testing.assert_close(found, weight)


def test_an_optimizers_state_goes_on_where_it_stopped() -> None:
    for settings in (
        SgdSettings(type="sgd"),
        SgdSettings(type="sgd", momentum=0),
        RmsPropSettings(type="rmsprop"),
    ):
        weight = nn.Parameter(torch.tensor([1.0, -2.0]))
        group = ParameterGroup(("w",), (weight,), 1.0, 1.0, 1.0, settings.only_rule)
        optimizer = Optimizer([group], settings)

        def advance(optimizer: Optimizer, weight: nn.Parameter, steps: int) -> None:
            for _ in range(steps):
                weight.grad = 2 * weight.detach()
                optimizer.set_rates(0.01, 0.1)
                optimizer.step(optimizer.gradient_norm())

        advance(optimizer, weight, 3)
        copy = nn.Parameter(weight.detach().clone())
        same = ParameterGroup(("w",), (copy,), 1.0, 1.0, 1.0, settings.only_rule)
        other = Optimizer([same], settings)
        for name, tensor in other.state().items():
            tensor.copy_(optimizer.state()[name])
        advance(optimizer, weight, 2)
        advance(other, copy, 2)
        assert torch.equal(weight, copy)


def test_kernels_decay_and_norms_and_biases_do_not(recipe_file: Path) -> None:
    recipe = load_vision_recipe(str(recipe_file), ["optimizer.weight_decay=0.5"]).recipe
    network = RevBiFPN(recipe.model)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = build_optimizer(network, recipe.optimizer)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.set_rates(0.1, 0.5)
    optimizer.step(optimizer.gradient_norm())
    for name, parameter in network.named_parameters():
        kept = 0.95 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), kept * before[name])


def test_nesterov_needs_momentum(recipe_file: Path) -> None:
    with pytest.raises(UserError, match="nesterov: it needs momentum above 0"):
        load_vision_recipe(str(recipe_file), ["optimizer.momentum=0", "optimizer.nesterov=true"])


def test_an_average_follows_weights_and_statistics() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(model, 0.75)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(3):
        with torch.no_grad():
            model[0].weight.add_(1.0)
            model(torch.randn(4, 2))
        average.update(model)
        for name, value in model.state_dict().items():
            floating = value.is_floating_point()
            expected[name] = 0.75 * expected[name] + 0.25 * value if floating else value.clone()
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value, expected[name])
