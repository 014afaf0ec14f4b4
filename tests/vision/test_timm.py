"""Our networks beside one of timm's own: members, maps, registry and data configuration."""

from pathlib import Path

import pytest
import torch

import feldspar.vision
from feldspar.core.errors import UserError
from feldspar.recipe.sections.vision import revbifpn_settings
from feldspar.vision.authors import authors_names
from feldspar.vision.feature_network import FeatureNetwork
from feldspar.vision.image_classifier import ImageClassifier
from feldspar.vision.models import MODELS
from feldspar.vision.revbifpn import RevBiFPN

timm = pytest.importorskip("timm")

THEIRS = "test_resnet"
"""A small model of timm's own, with maps at other strides."""
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    """The names in timm's registry; a second call changes nothing."""
    feldspar.vision.register_with_timm()
    feldspar.vision.register_with_timm()


@pytest.fixture(scope="module", params=[THEIRS, "revbifpn_s0"])
def classifier(request: pytest.FixtureRequest) -> torch.nn.Module:
    """A model of timm's, then ours: what holds for the one holds for the other."""
    return timm.create_model(request.param, num_classes=7).eval()


@torch.no_grad()
def test_members_of_a_classifier(classifier: torch.nn.Module) -> None:
    features = classifier.forward_features(IMAGES)
    pooled = classifier.forward_head(features, pre_logits=True)
    assert features.shape[1] == classifier.num_features
    assert pooled.shape == (2, classifier.head_hidden_size)
    assert torch.equal(classifier.forward_head(features), classifier(IMAGES))
    assert classifier.get_classifier().out_features == classifier.num_classes == 7
    assert classifier.default_cfg is classifier.pretrained_cfg
    assert classifier.default_cfg["num_classes"] == 1000
    name = classifier.default_cfg["classifier"]
    assert classifier.get_submodule(name) is classifier.get_classifier()
    final, maps = classifier.forward_intermediates(IMAGES)
    assert torch.equal(final, features)
    assert len(maps) == len(classifier.feature_info)
    for each, told in zip(maps, classifier.feature_info, strict=True):
        assert each.shape[1:] == (told["num_chs"], *[64 // told["reduction"]] * 2)
    classifier.set_grad_checkpointing(True)
    assert torch.equal(classifier(IMAGES), classifier.forward_head(features))


@pytest.mark.parametrize("name", [THEIRS, "revbifpn_s0"])
@torch.no_grad()
def test_a_classifier_without_classes(name: str) -> None:
    model = timm.create_model(name, num_classes=0).eval()
    assert isinstance(model.get_classifier(), torch.nn.Identity)
    assert model(IMAGES).shape == (2, model.num_features)
    model.reset_classifier(5)
    assert model(IMAGES).shape == (2, 5) and model.num_classes == 5
    model.reset_classifier(0, "")
    assert model(IMAGES).shape == model.forward_features(IMAGES).shape


@pytest.mark.parametrize("name", [THEIRS, "revbifpn_s0"])
@torch.no_grad()
def test_feature_info_tells_the_shapes_of_maps(name: str) -> None:
    model = timm.create_model(name, features_only=True, out_indices=(1, 3)).eval()
    maps = model(IMAGES)
    assert isinstance(maps, list)
    assert [each.shape[1] for each in maps] == model.feature_info.channels()
    assert [64 // each.shape[2] for each in maps] == model.feature_info.reduction()
    assert model.feature_info.out_indices == (1, 3)
    assert not {"num_classes", "classifier"} & set(model.pretrained_cfg)


def test_our_feature_info_answers_as_theirs() -> None:
    ours = FeatureNetwork(revbifpn_settings("S0"), out_indices=(0, 2)).feature_info
    theirs = timm.models.FeatureInfo([dict(entry) for entry in ours], (0, 2))
    for name in ("channels", "reduction", "module_name"):
        for index in (None, 3, -1, [1, 3]):
            assert getattr(ours, name)(index) == getattr(theirs, name)(index)
    for keys in (None, ["num_chs", "index"]):
        for index in (None, 3, [1, 3]):
            assert ours.get_dicts(keys, index) == theirs.get_dicts(keys, index)


@torch.no_grad()
def test_timm_wraps_our_classifier() -> None:
    from timm.models._features import FeatureGetterNet

    model = feldspar.vision.create_model("revbifpn_s0", num_classes=7).eval()
    wrapped = FeatureGetterNet(model, out_indices=(0, 3))
    maps = wrapped(IMAGES)
    assert wrapped.feature_info.channels() == [each.shape[1] for each in maps] == [48, 160]


def test_names_in_the_registry() -> None:
    assert timm.list_models("revbifpn*") == sorted(MODELS)
    assert timm.list_models("revbifpn*", pretrained=True) == []
    model = timm.create_model("revbifpn_s0", in_chans=2, drop_rate=0.5, drop_path_rate=0.1)
    assert isinstance(model, ImageClassifier)
    settings = model.settings
    found = (settings.image_channels, settings.dropout, settings.stochastic_depth)
    assert found == (2, 0.5, 0.1)
    with pytest.raises(UserError, match="downloads none"):
        timm.create_model("revbifpn_s0", pretrained=True)
    with pytest.raises(UserError, match="no weights under the tag 'in1k'"):
        timm.create_model("revbifpn_s0.in1k")


def test_weights_through_timm(tmp_path: Path) -> None:
    network = RevBiFPN(revbifpn_settings("S0"), seed=5)
    names = authors_names(network)
    path = tmp_path / "revbifpn_s0.pth.tar"
    torch.save({names[name]: value for name, value in network.state_dict().items()}, path)
    overlay = {"file": str(path)}
    model = timm.create_model("revbifpn_s0", pretrained=True, pretrained_cfg_overlay=overlay)
    for name, value in network.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.pretrained_cfg["file"] == str(path)


def test_data_configuration() -> None:
    for features_only in (False, True):
        model = feldspar.vision.create_model("revbifpn_s0", features_only=features_only)
        assert timm.data.resolve_data_config(model=model) == {
            "input_size": (3, 224, 224),
            "interpolation": "bilinear",
            "mean": timm.data.IMAGENET_DEFAULT_MEAN,
            "std": timm.data.IMAGENET_DEFAULT_STD,
            "crop_pct": 0.875,
            "crop_mode": "center",
        }
