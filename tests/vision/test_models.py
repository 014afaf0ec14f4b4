"""Networks by name: what they return, what their members say, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import feldspar.vision
from feldspar.core.errors import UserError
from feldspar.plan.quick_shapes import QuickShapes
from feldspar.recipe.sections.vision import SIZES, revbifpn_settings
from feldspar.vision.authors import authors_names
from feldspar.vision.feature_info import chosen_maps
from feldspar.vision.feature_network import FeatureNetwork
from feldspar.vision.image_classifier import ImageClassifier
from feldspar.vision.load import load_vision_run
from feldspar.vision.models import MODELS, classifier_configuration, model_settings
from feldspar.vision.network_cost import shapes_of
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.start import load_pretrained
from tests.vision.test_revbifpn import TINY

IMAGES = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    """S0 for seven classes; not to be changed."""
    model = feldspar.vision.create_model("revbifpn_s0", num_classes=7).eval()
    assert isinstance(model, ImageClassifier)
    return model


def test_the_room_is_imported_without_torch() -> None:
    program = (
        "import sys, feldspar.vision\n"
        "assert 'torch' not in sys.modules\n"
        "assert callable(feldspar.vision.create_model) and 'torch' in sys.modules\n"
        "assert all(hasattr(feldspar.vision, name) for name in dir(feldspar.vision))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        feldspar.vision.create_modle  # noqa: B018


@torch.no_grad()
def test_a_classifier_is_the_network_of_that_size(classifier: ImageClassifier) -> None:
    network = RevBiFPN(revbifpn_settings("S0", 7)).eval()
    assert classifier.state_dict().keys() == network.state_dict().keys()
    logits = classifier(IMAGES)
    assert logits.shape == (2, 7)
    assert torch.equal(logits, network(IMAGES))


@torch.no_grad()
def test_features_go_through_the_head(classifier: ImageClassifier) -> None:
    features = classifier.forward_features(IMAGES)
    assert features.shape == (2, 1280, 1, 2)
    pooled = classifier.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    assert torch.equal(classifier.forward_head(features), classifier.get_classifier()(pooled))
    final, maps = classifier.forward_intermediates(IMAGES)
    assert torch.equal(final, features)
    assert all(map(torch.equal, maps, classifier.features(IMAGES)))
    coarse = classifier.forward_intermediates(IMAGES, 1, intermediates_only=True)
    assert [tuple(each.shape) for each in coarse] == [(2, 160, 1, 2)]
    with pytest.raises(UserError, match="maps are NCHW"):
        classifier.forward_intermediates(IMAGES, output_fmt="NLC")


@pytest.mark.parametrize("name", MODELS)
def test_members_of_every_size(name: str) -> None:
    resolution, keys = SIZES[MODELS[name]]
    with torch.device("meta"), QuickShapes():
        model = ImageClassifier(model_settings(name), pretrained_cfg=classifier_configuration(name))
    assert model.num_classes == 1000 and model.num_features == keys["head_width"]
    assert model.feature_info.channels() == list(keys["channels"])
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    told = model.default_cfg
    assert told is model.pretrained_cfg and told["input_size"] == (3, resolution, resolution)
    assert told["mean"] == (0.485, 0.456, 0.406) and told["std"] == (0.229, 0.224, 0.225)
    assert told["first_conv"] is None and told["pool_size"] == (resolution // 32,) * 2
    assert model.get_submodule(told["classifier"]) is model.get_classifier()
    assert (model.settings.dropout, model.settings.stochastic_depth) == (
        keys["dropout"],
        keys["stochastic_depth"],
    )


@torch.no_grad()
def test_maps_are_those_of_the_whole_network(classifier: ImageClassifier) -> None:
    whole = feldspar.vision.create_model("revbifpn_s0", features_only=True).eval()
    maps = whole(IMAGES)
    assert isinstance(maps, list)
    assert [tuple(each.shape[1:]) for each in maps] == [
        (width, 8 // 2**index, 16 // 2**index) for index, width in enumerate((48, 64, 80, 160))
    ]
    assert all(map(torch.equal, maps, classifier.features(IMAGES)))
    assert not any(name.startswith(("neck", "head", "final")) for name in whole.state_dict())
    two = feldspar.vision.create_model("revbifpn_s0", features_only=True, out_indices=(3, -3))
    assert two.feature_info.channels() == [160, 64] and two.feature_info.reduction() == [32, 8]
    assert all(map(torch.equal, two.eval()(IMAGES), (maps[3], maps[1])))


@torch.no_grad()
def test_maps_after_the_neck(classifier: ImageClassifier) -> None:
    necked = feldspar.vision.create_model("revbifpn_s0", features_only=True, with_neck=True).eval()
    maps, expected = necked(IMAGES), classifier.pyramid(IMAGES)
    assert all(map(torch.equal, maps, expected))
    assert necked.feature_info.channels() == [each.shape[1] for each in maps]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [(None, (0, 1, 2, 3)), (2, (2, 3)), (4, (0, 1, 2, 3)), ((0,), (0,)), ((-1, 1), (3, 1))],
)
def test_indices_of_maps(wanted: object, found: tuple[int, ...]) -> None:
    assert chosen_maps(wanted, 4) == found


@pytest.mark.parametrize("wanted", [(), (4,), (-5,), 0, 5, -1])
def test_indices_that_there_are_not(wanted: object) -> None:
    with pytest.raises(UserError, match="out_indices: there are no such maps"):
        chosen_maps(wanted, 4)


def tiny(**given: object) -> ImageClassifier:
    return ImageClassifier(TINY, **given).eval()


def test_a_classifier_is_replaced() -> None:
    images = torch.randn(2, 1, 32, 32)
    model = tiny().double()
    model.reset_classifier(9)
    assert model(images.double()).shape == (2, 9) and model.num_classes == 9
    assert model.settings.classes == 9 and model.classifier.weight.dtype == torch.float64
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert model(images.double()).shape == (2, model.num_features)
    model.reset_classifier(0, global_pool="")
    features = model(images.double())
    assert torch.equal(features, model.forward_features(images.double()))
    with pytest.raises(UserError, match="needs pooled features"):
        model.reset_classifier(3)
    highest = tiny(num_classes=0, global_pool="max").double()
    assert torch.equal(highest(images.double()), features.amax((2, 3)))
    with pytest.raises(UserError, match="global_pool is not known"):
        tiny(global_pool="mean")
    with pytest.raises(UserError, match="at least one class"):
        tiny(num_classes=-1)


def test_dropout_acts_on_pooled_features_in_training() -> None:
    settings = TINY.model_copy(update={"dropout": 0.5})
    model = ImageClassifier(settings, num_classes=0)
    dropped = (model(torch.randn(4, 1, 32, 32)) == 0).float().mean().item()
    assert 0.2 < dropped < 0.8  # 128 draws


def test_checkpointing_is_a_choice_of_memory() -> None:
    model = tiny()
    for enable, memory in ((False, "store"), (True, "reversible"), (True, "reversible")):
        model.set_grad_checkpointing(enable)
        assert model.memory == memory
    model.memory = "recompute"
    model.set_grad_checkpointing()
    assert model.memory == "recompute"


@torch.no_grad()
def test_channels_of_images_repeat_in_turn(classifier: ImageClassifier) -> None:
    gray = feldspar.vision.create_model("revbifpn_s0", in_chans=1, num_classes=7).eval()
    single = IMAGES[:, :1]
    assert torch.equal(gray(single), classifier(single.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "revbifpn_s7"}, "no model has the name 'revbifpn_s7'"),
        ({"in_chans": 4}, "in_chans: the stem of revbifpn_s0 holds images of 1 to 3 channels"),
        ({"in_chans": 0}, "1 to 3 channels"),
        ({"drop_rate": 1.0}, "drop_rate must be at least 0 and below 1"),
        ({"drop_path_rate": -0.1}, "drop_path_rate must be"),
        ({"memory": "stored"}, "memory is not known: 'stored'"),
        ({"pretrained": True}, "has no weights of revbifpn_s0 and downloads none"),
        ({"pretrained": "absent.pth"}, "pretrained: absent.pth cannot be read as weights"),
    ],
)
def test_what_no_model_has_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        feldspar.vision.create_model(**{"name": "revbifpn_s0"} | given)
    assert isinstance(caught.value, UserError)
    if "name" in given:
        assert all(name in str(caught.value) for name in MODELS)


def test_images_of_other_kinds_are_refused() -> None:
    model = FeatureNetwork(TINY)
    with pytest.raises(ValueError, match="multiples of 16") as caught:
        model(torch.zeros(1, 1, 40, 32))
    assert "40 x 32" in str(caught.value)
    with pytest.raises(TypeError, match="scale and normalise"):
        model(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="images, 1, height, width") as caught:
        model(torch.zeros(1, 3, 32, 32))
    assert "(1, 3, 32, 32)" in str(caught.value)


@torch.no_grad()
def test_images_are_padded_where_that_is_wanted() -> None:
    model = tiny()
    model.pad_to_stride = True
    images = torch.randn(1, 1, 30, 33)
    padded = torch.zeros(1, 1, 32, 48)
    padded[..., :30, :33] = images
    with pytest.warns(UserWarning, match="30 x 33 are padded to 32 x 48"):
        logits = model(images)
    assert torch.equal(logits, model(padded))
    built = feldspar.vision.create_model("revbifpn_s0", features_only=True, pad_to_stride=True)
    assert built.pad_to_stride


def test_published_weights_by_name(tmp_path: Path) -> None:
    network = RevBiFPN(revbifpn_settings("S0"), seed=5)
    names = authors_names(network)
    state = network.state_dict()
    path = tmp_path / "revbifpn_s0.pth.tar"
    torch.save({"state_dict": {names[name]: value for name, value in state.items()}}, path)
    model = feldspar.vision.create_model("revbifpn_s0", path, features_only=True, with_neck=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    other = feldspar.vision.create_model("revbifpn_s0", str(path), num_classes=7)
    assert torch.equal(other.final.convolution.weight, state["final.convolution.weight"])
    assert other.classifier.out_features == 7
    with pytest.raises(UserError, match=r"pretrained: .* is not the authors' checkpoint"):
        load_pretrained(shapes_of(revbifpn_settings("S3")), path)


def test_weights_of_a_run(finished_run: Path) -> None:
    run = load_vision_run(finished_run).network
    features = FeatureNetwork(run.settings)
    load_pretrained(features, finished_run)
    without = ImageClassifier(run.settings, num_classes=0)
    load_pretrained(without, finished_run)
    for network in (features, without):
        for name, value in network.state_dict().items():
            assert torch.equal(value, run.state_dict()[name]), name
    with pytest.raises(UserError, match="does not fit the network at backbone"):
        feldspar.vision.create_model("revbifpn_s0", finished_run, in_chans=1)
    deeper = run.settings.model_copy(update={"extra_silos": 0})
    with pytest.raises(UserError, match=r"holds backbone.* which the network lacks"):
        load_pretrained(FeatureNetwork(deeper), finished_run)
