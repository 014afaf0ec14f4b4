"""Parameters and multiply-adds of the paper, to the last digit; bytes of a real step."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from feldspar.core.errors import UserError
from feldspar.recipe.sections.vision import SIZES, RevBiFPNSettings, revbifpn_settings
from feldspar.vision.network_cost import (
    count_multiply_adds,
    measured_step,
    shapes_of,
    step_memory,
)
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.task import ClassificationLoss

GOLDEN = {
    # parameters, convolutions' multiply-adds, biases, classifier, norms x 2, upsampling x 11, all
    "S0": (3419196, 268129648, 8660, 1280000, 14370720, 24250688, 308039716),
    "S1": (5112300, 549110528, 10948, 1696000, 24242176, 41721856, 616781508),
    "S2": (10576528, 1266863104, 17320, 2560000, 37539840, 63348736, 1370329000),
    "S3": (19574184, 3119971040, 28000, 3408000, 74486304, 132979968, 3330873312),
    "S4": (48687336, 10162653440, 51840, 5120000, 164492800, 299904000, 10632222080),
    "S5": (81998976, 21096569712, 68216, 6816000, 263230176, 482311808, 21848995912),
    "S6": (142307972, 36995244256, 99580, 8528000, 376091232, 704471680, 38084434748),
}
LAYERS = {
    "S0": (246, 444),
    "S1": (246, 444),
    "S2": (246, 444),
    "S3": (312, 558),
    "S4": (378, 672),
    "S5": (378, 672),
    "S6": (444, 786),
}
"""Batch norms, convolutions."""
PARTS = {"S3": (10574744, 1592406, 7407034), "S6": (98676316, 10030270, 33601386)}
"""Parameters of backbone, neck, head."""


MEMORIES = ("store", "recompute", "reversible")


def parameters_of(*modules: nn.Module) -> int:
    """Return how many parameters the modules have."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize("size", GOLDEN)
def test_counts_of_the_paper(size: str) -> None:
    resolution, network = SIZES[size][0], shapes_of(revbifpn_settings(size))
    work = count_multiply_adds(network, resolution, resolution)
    assert GOLDEN[size] == (
        parameters_of(network),
        work.convolutions,
        work.biases_added,
        work.linear,
        2 * work.entries_normalised,
        11 * work.entries_upsampled,
        work.paper_total,
    )
    assert work.total == GOLDEN[size][1] + GOLDEN[size][3]
    layers = [*network.modules()]
    kinds = (nn.BatchNorm2d, nn.Conv2d)
    assert LAYERS[size] == tuple(sum(isinstance(layer, kind) for layer in layers) for kind in kinds)
    if size in PARTS:
        head = parameters_of(network.head, network.final, network.classifier)
        found = (parameters_of(network.backbone), parameters_of(network.neck), head)
        assert found == PARTS[size]
    assert network.training


def test_parameters_of_every_part_of_s0() -> None:
    network = shapes_of(revbifpn_settings("S0"))
    blocks = [parameters_of(block) for block in network.backbone.in_order]
    assert [tuple(blocks[start : start + 3]) for start in range(0, len(blocks), 3)] == [
        (2412, 2412, 10940),
        (7420, 7420, 44256),
        (26790, 26790, 276650),
        *[(87590, 87590, 276650)] * 2,
    ]
    assert sum(blocks) == 1308750
    assert [parameters_of(part) for part in network.neck] == [4908, 24464, 41546, 176660]
    head = [*network.head, network.final, network.classifier]
    assert [parameters_of(part) for part in head] == [5708, 32784, 131216, 412160, 1281000]


def test_multiply_adds_grow_with_the_area_but_for_what_is_pooled() -> None:
    network = shapes_of(revbifpn_settings("S0", classes=10))
    small, large = (count_multiply_adds(network, 64, width) for width in (64, 128))
    assert large.entries_upsampled == 2 * small.entries_upsampled
    pooled = small.biases_added  # one bias an entry: excitation works on a single position
    assert 0 < 2 * small.convolutions - large.convolutions < small.convolutions / 4
    assert large.biases_added == pooled


SMALL = {
    "channels": (16, 32, 48),
    "neck_channels": (16, 32, 64),
    "head_width": 128,
    "image_channels": 1,
    "classes": 10,
    "extra_silos": 2,
}


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize(
    "change",
    [{}, {"dropout": 0.2, "stochastic_depth": 0.3}, {"fixed_point_bits": 10}],
    ids=["plain", "dropout", "grid"],
)
def test_bytes_of_a_step_without_values_are_those_of_a_real_step(
    memory: str, change: dict[str, float]
) -> None:
    settings = RevBiFPNSettings.model_validate(SMALL | change)
    planned = step_memory(shapes_of(settings, memory), 32, batch_images=6)
    real = RevBiFPN(settings, memory)
    saved, alive = measured_step(real, torch.randn(6, 1, 32, 32), 10)
    assert (planned.activations, planned.activations + planned.working) == (saved, alive)
    tensors = [*real.parameters(), *real.buffers()]
    assert planned.weights == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert planned.gradients == 4 * parameters_of(real)


def test_stored_activations_are_the_tensors_that_autograd_saves() -> None:
    """Counted once more by hooks of this test's own, which keep all tensors alive."""
    settings = RevBiFPNSettings.model_validate(SMALL)
    network = RevBiFPN(settings, "store")
    saved: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.detach())
        return tensor.detach()

    targets = torch.full((4, 10), 0.1)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        ClassificationLoss(network)(torch.randn(4, 1, 32, 32), targets)
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}
    kept = sum(size for place, size in sizes.items() if place not in own)
    planned = step_memory(shapes_of(settings, "store"), 32, batch_images=4)
    assert planned.activations == kept


def test_the_optimizer_and_the_average_count_too() -> None:
    network = shapes_of(RevBiFPNSettings.model_validate(SMALL))
    plain = step_memory(network, 32, 8)
    memory = step_memory(network, 32, 8, states_per_weight=2, averages=True)
    assert memory.optimizer == 2 * memory.gradients == 8 * parameters_of(network)
    assert memory.average == memory.weights
    assert memory.total == plain.total + memory.optimizer + memory.average


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"channels": (48, 64, 81, 160)},
            "streams are split into halves; 81 is odd",
        ),
        ({"channels": (32, 64, 80, 160)}, "16 pixels of 3 channels"),
        ({"channels": (56, 64, 80, 160)}, "16 pixels of 3 channels"),
        ({"channels": (48,), "neck_channels": (48,)}, "1 streams are not supported; give 2 to 4"),
        ({"neck_channels": (48, 64)}, "2 widths for 4 streams"),
    ],
)
def test_settings_that_make_no_network_are_refused(
    change: dict[str, tuple[int, ...]], message: str
) -> None:
    fields = revbifpn_settings("S0").model_dump() | change
    with pytest.raises(ValueError, match=message):
        RevBiFPNSettings(**fields)


def test_unknown_sizes_and_indivisible_images_are_refused() -> None:
    with pytest.raises(UserError, match="no RevBiFPN has the size 'S9'") as error:
        revbifpn_settings("S9")
    assert "S0, S1, S2, S3, S4, S5, S6" in str(error.value)
    with pytest.raises(UserError, match="multiples of 32"):
        count_multiply_adds(shapes_of(revbifpn_settings("S0")), 100, 96)
