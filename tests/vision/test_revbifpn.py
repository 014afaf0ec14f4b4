"""The network against the authors' code (values of one pass in float64), and against itself."""

import pytest
import torch
from torch import nn

from feldspar.core.errors import UserError
from feldspar.plan.storage_bytes import peak_bytes
from feldspar.recipe.sections.vision import RevBiFPNSettings, revbifpn_settings
from feldspar.vision.layout import network_layout
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.stem import space_to_depth

TINY = RevBiFPNSettings(
    channels=(16, 24, 32),
    neck_channels=(16, 24, 32),
    head_width=32,
    classes=4,
    image_channels=1,
    residual_layers=1,
    extra_silos=1,
)
MODES = ("store", "recompute", "reversible")


AUTHORS_MEANS = {
    "streams": [4.304355453, 5.290823558, 5.902182525, 4.345010372],
    "neck": [0.766634316, 0.666196582, 0.797831542, 0.832332961],
}
"""Mean magnitudes."""
AUTHORS_FIRST = [9.519156374, 9.043991665, 5.592056535, 1.145948749]
"""First value of each stream."""
AUTHORS_LOGITS = [
    *(0.1226910498, 0.0403604043, 0.0369077461, -0.0606191262, -0.1197384751),
    *(-0.0532457067, -0.0589164407, 0.0419716176, 0.1120066559, 0.0618723976),
]


def tiny(memory="reversible", **change) -> RevBiFPN:
    """A network of three streams in float64."""
    return RevBiFPN(TINY.model_copy(update=change), memory).double()


def oracle_model() -> RevBiFPN:
    """S0 with 10 classes and values given by shapes alone (the rule is the authors' oracle's)."""
    settings = revbifpn_settings("S0", 10).model_copy(update={"dropout": 0.0})
    model = RevBiFPN(settings).double()
    with torch.no_grad():
        for module in model.modules():
            if not isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                continue
            weight, bias = module.weight, module.bias
            n = torch.arange(weight.numel(), dtype=torch.float64)
            if isinstance(module, nn.BatchNorm2d):
                weight.copy_(1 + 0.1 * n.sin())
                bias.copy_(0.05 * n.cos())
                continue
            fan = weight.numel() / len(weight)
            weight.copy_(((0.37 * n + 0.1).cos() * (2 / fan) ** 0.5).view_as(weight))
            if bias is not None:
                bias.copy_(0.1 * (0.73 * torch.arange(len(bias), dtype=torch.float64)).cos())
    return model


def norm_of_gradients(*modules: nn.Module) -> float:
    """L2 norm over all parameters of the modules."""
    squares = [p.grad.square().sum() for module in modules for p in module.parameters()]
    return float(torch.stack(squares).sum().sqrt())


def test_an_unknown_memory_is_refused():
    with pytest.raises(UserError, match="not known: 'reversible-exact'"):
        tiny("reversible-exact")
    with pytest.raises(UserError, match="not known: 'stored'"):
        tiny().memory = "stored"


def test_values_of_the_authors_code():
    model = oracle_model()
    n = torch.arange(2 * 3 * 64 * 64, dtype=torch.float64)
    images = ((0.01 * n + 0.3).sin() + 0.25 * (1.7 * n).cos()).view(2, 3, 64, 64)
    seen = {"streams": [], "neck": []}
    model.backbone.register_forward_hook(lambda *call: seen["streams"].extend(call[2]))
    for block in model.neck:
        block.register_forward_hook(lambda *call: seen["neck"].append(call[2]))
    logits = model(images)
    close = {"rtol": 1e-7, "atol": 1e-10}
    for name, expected in AUTHORS_MEANS.items():
        means = torch.stack([stream.detach().abs().mean() for stream in seen[name]])
        torch.testing.assert_close(means, torch.tensor(expected, dtype=torch.float64), **close)
    first = torch.stack([stream.detach().flatten()[0] for stream in seen["streams"]])
    torch.testing.assert_close(first, torch.tensor(AUTHORS_FIRST, dtype=torch.float64), **close)
    expected = torch.tensor(AUTHORS_LOGITS, dtype=torch.float64)
    torch.testing.assert_close(logits[0].detach(), expected, **close)
    loss = logits.square().mean()
    assert loss.item() == pytest.approx(0.00595807588353, rel=1e-7)
    loss.backward()
    assert norm_of_gradients(model.backbone) == pytest.approx(0.0160839499, rel=1e-5)
    assert norm_of_gradients(model.neck) == pytest.approx(0.0154578003, rel=1e-5)
    head = (model.head, model.final, model.classifier)
    assert norm_of_gradients(*head) == pytest.approx(0.3155538336, rel=1e-5)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    means = sum(float(norm.running_mean.abs().sum()) for norm in norms)
    variances = sum(float(norm.running_var.sum()) for norm in norms)
    assert means == pytest.approx(320.618518255, rel=1e-7)
    assert variances == pytest.approx(28458.464675919, rel=1e-7)
    assert all(int(norm.num_batches_tracked) == 1 for norm in norms)


def test_shapes_and_counts_of_s0():
    settings = revbifpn_settings("S0")
    model = RevBiFPN(settings).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 3419196
    norms, convolutions = (
        [module for module in model.modules() if isinstance(module, kind)]
        for kind in (nn.BatchNorm2d, nn.Conv2d)
    )
    assert (len(norms), len(convolutions)) == (246, 444)
    with torch.no_grad():
        pyramid = model.pyramid(images := torch.randn(1, 3, 64, 128))
        assert [tuple(stream.shape[1:]) for stream in model.features(images)] == [
            (48, 16, 32),
            (64, 8, 16),
            (80, 4, 8),
            (160, 2, 4),
        ]
    assert [stream.shape[1] for stream in pyramid] == [48, 64, 128, 320]
    assert model.pooled_features(pyramid).shape == (1, 1280)


def test_a_network_without_a_neck_reads_the_streams_of_its_backbone():
    settings = RevBiFPNSettings.model_validate({"size": "S0", "neck_channels": None})
    model = RevBiFPN(settings).eval()
    assert [block.channels_in for block in network_layout(settings).head] == [48, 64, 80]
    assert not model.neck
    with torch.no_grad():
        images = torch.randn(1, 3, 64, 64)
        for read, stream in zip(model.pyramid(images), model.features(images), strict=True):
            assert torch.equal(read, stream)
        assert model(images).shape == (1, 1000)


def test_space_to_depth_keeps_the_channels_of_a_pixel_together():
    values = torch.stack([torch.arange(16.0), torch.arange(100.0, 116.0)]).view(1, 2, 4, 4)
    out = space_to_depth(values, 2)
    assert out.shape == (1, 8, 2, 2)
    assert out[0, :, 0, 0].tolist() == [0, 100, 1, 101, 4, 104, 5, 105]
    stem = RevBiFPN(revbifpn_settings("S1")).stem
    colours = torch.arange(3.0).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert stem(colours)[0, :, 0, 0].tolist() == [0, 1, 2, 0] * 16


def test_stochastic_depth_grows_from_stage_to_stage():
    stages = network_layout(revbifpn_settings("S6")).stages
    rates = [stage.silo.up[0].branch.drop_probability for stage in stages]
    assert rates == pytest.approx([0.3 * number / 8 for number in range(1, 9)])
    for stage in stages:
        for fusion in stage.silo.down:
            created = fusion.target == stage.silo.n_inputs
            assert (fusion.branch.drop_probability == 0) == created
        for coupling in stage.residual_layers[0]:
            assert coupling.first.drop_probability == stage.silo.up[0].branch.drop_probability


def test_three_ways_to_keep_activations_train_alike():
    """With dropout and stochastic depth: losses of three steps to 1e-9, statistics bit for bit."""
    images = torch.randn(8, 1, 32, 32, dtype=torch.float64)
    labels = torch.arange(8) % 4
    curves, models = [], []
    for memory in MODES:
        torch.manual_seed(4)
        model = tiny(memory, dropout=0.2, stochastic_depth=0.4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curves.append(losses)
        models.append(model.state_dict())
    assert curves[0][-1] < curves[0][0]
    for curve, state in zip(curves[1:], models[1:], strict=True):
        assert curve == pytest.approx(curves[0], rel=1e-9)
        assert state.keys() == models[0].keys()
        for name, value in state.items():
            torch.testing.assert_close(value, models[0][name], rtol=1e-8, atol=1e-10)


def test_rebuilt_streams_on_the_grid_have_exact_gradients_in_bfloat16():
    images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    found = {}
    for bits in (14, None):
        settings = TINY.model_copy(update={"fixed_point_bits": bits, "extra_silos": 3})
        for memory in ("store", "reversible"):
            network = RevBiFPN(settings, memory, seed=1)
            with torch.autocast("cpu", torch.bfloat16):
                loss = network(images).float().square().sum()
            loss.backward()
            gradients = [p.grad.flatten() for p in network.parameters()]
            found[memory, bits] = torch.cat(gradients)
    assert torch.equal(found["reversible", 14], found["store", 14])
    # Off the grid the rebuilt streams drift, by less than bfloat16 itself rounds.
    drift = (found["reversible", None] - found["store", None]).norm()
    assert 0 < drift < 0.1 * found["store", None].norm()


def test_the_backbone_is_inverted():
    model = tiny().eval()
    images = torch.randn(2, 1, 32, 16 * 3, dtype=torch.float64)
    with torch.no_grad():
        (finest,) = model.backbone.inverse(*model.features(images))
    assert (finest - model.stem(images)).abs().max() < 1e-11


def test_memory_does_not_grow_with_extra_silos():
    images = torch.randn(2, 1, 64, 64)

    def step(memory: str, extra_silos: int) -> int:
        model = tiny(memory, extra_silos=extra_silos).float()
        gradients = sum(4 * parameter.numel() for parameter in model.parameters())
        return peak_bytes(lambda: model(images).sum().backward()) - gradients

    assert step("reversible", 8) <= 1.01 * step("reversible", 1)
    assert step("store", 8) > 2.5 * step("store", 1)


def test_initial_values_come_from_the_seed():
    first, same, other = (
        RevBiFPN(TINY, seed=seed).classifier.weight.detach() for seed in (1, 1, 2)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)
    weight = RevBiFPN(TINY).final.convolution.weight
    assert weight.std().item() == pytest.approx((2 / 32) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 24, 32), "multiples of 16"),
        (torch.zeros(2, 1, 30, 30), "multiples of 16"),
        (torch.zeros(2, 3, 32, 32), "images, 1, height, width"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), "floating-point"),
        (torch.zeros(1, 1, 16, 16), "single value in each channel"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, message):
    with pytest.raises(UserError, match=message):
        RevBiFPN(TINY)(images)
