"""The paper's parameters and multiply-adds, to the last digit, and those of single parts."""

import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.sections.vision import SIZES, RevBiFPNSettings, revbifpn_settings
from feldspar.vision.counts import count_network

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


@pytest.mark.parametrize("size", GOLDEN)
def test_counts_of_the_paper(size):
    resolution, settings = SIZES[size][0], revbifpn_settings(size)
    counts = count_network(settings, resolution, resolution)
    total = counts.total
    assert GOLDEN[size] == (
        total.parameters,
        total.convolution_macs,
        total.biases_added,
        total.linear_macs,
        2 * total.entries_normalised,
        11 * total.entries_upsampled,
        total.paper_macs,
    )
    assert total.macs == GOLDEN[size][1] + GOLDEN[size][3]
    assert LAYERS[size] == (total.batch_norms, total.convolutions)
    if size in PARTS:
        heads = (sum(part.parameters for part in parts) for parts in (counts.neck, counts.head))
        assert (counts.backbone.parameters, *heads) == PARTS[size]


def test_parameters_of_every_part_of_s0():
    counts = count_network(revbifpn_settings("S0"), 224, 224)
    stages = [
        (*(layer.parameters for layer in stage.residual_layers), stage.silo.parameters)
        for stage in counts.stages
    ]
    assert stages == [
        (2412, 2412, 10940),
        (7420, 7420, 44256),
        (26790, 26790, 276650),
        *[(87590, 87590, 276650)] * 2,
    ]
    assert counts.backbone.parameters == 1308750
    assert [part.parameters for part in counts.neck] == [4908, 24464, 41546, 176660]
    assert [part.parameters for part in counts.head] == [5708, 32784, 131216, 412160, 1281000]


def test_multiply_adds_grow_with_the_area_but_for_what_is_pooled():
    settings = revbifpn_settings("S0", classes=10)
    small, large = (count_network(settings, 64, width).total for width in (64, 128))
    assert small.parameters == large.parameters
    assert large.entries_upsampled == 2 * small.entries_upsampled
    pooled = small.biases_added  # one bias an entry: excitation works on a single position
    assert 0 < 2 * small.convolution_macs - large.convolution_macs < small.convolution_macs / 4
    assert large.biases_added == pooled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": (48, 64, 81, 160)}, "in halves, which 81"),
        ({"channels": (32, 64, 80, 160)}, "16 pixels of 3 channels"),
        ({"channels": (56, 64, 80, 160)}, "16 pixels of 3 channels"),
        ({"channels": (48,), "neck_channels": (48,)}, "1 streams; 2 to 4"),
        ({"neck_channels": (48, 64)}, "2 widths for 4 streams"),
    ],
)
def test_settings_that_make_no_network_are_refused(change, message):
    fields = revbifpn_settings("S0").model_dump() | change
    with pytest.raises(ValueError, match=message):
        RevBiFPNSettings(**fields)


def test_unknown_sizes_and_indivisible_images_are_refused():
    with pytest.raises(UserError, match="no RevBiFPN of size 'S9'") as error:
        revbifpn_settings("S9")
    assert "S0, S1, S2, S3, S4, S5, S6" in str(error.value)
    with pytest.raises(UserError, match="multiples of 32"):
        count_network(revbifpn_settings("S0"), 100, 96)
