"""Exported networks, run by onnxruntime and by torch alone, against the networks themselves."""

import json
from pathlib import Path

import pytest
import torch

import feldspar.vision
from feldspar.core.errors import RunError, UserError
from feldspar.recipe.sections.vision import RevBiFPNSettings
from feldspar.vision.export import export_network, export_run
from feldspar.vision.export_formats import DESCRIPTION, FORMATS
from feldspar.vision.feature_network import FeatureNetwork
from feldspar.vision.image_classifier import ImageClassifier
from feldspar.vision.load import load_vision_run
from feldspar.vision.pyramid import ReversiblePyramid
from feldspar.vision.revbifpn import RevBiFPN

SMALL = RevBiFPNSettings(
    channels=(16, 24),
    neck_channels=(16, 24),
    head_width=32,
    classes=4,
    image_channels=1,
    residual_layers=1,
    extra_silos=0,
    dropout=0.5,
    stochastic_depth=0.5,
    fixed_point_bits=14,
)
"""A network with everything that a graph must not have: dropout, dropped branches, checks of
values, and a reversible backward pass."""


def settled(network: ReversiblePyramid) -> ReversiblePyramid:
    """The network with running statistics of its own."""
    images = torch.randn(8, network.settings.image_channels, 32, 32)
    network.train()(images)
    return network


def described(path: Path) -> dict[str, object]:
    """Return what a file tells of itself."""
    if path.suffix == ".onnx":
        onnx = pytest.importorskip("onnx")
        (entry,) = [each for each in onnx.load(path).metadata_props if each.key == DESCRIPTION]
        return json.loads(entry.value)
    extra = {DESCRIPTION: ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra[DESCRIPTION])


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_returns_what_the_network_returns(tmp_path: Path, file_format: str) -> None:
    if file_format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    network = settled(RevBiFPN(SMALL))
    path = tmp_path / "new" / f"network.{file_format}"
    written = export_network(network, path, file_format, (16, 24))
    assert written.image_shape == (1, 16, 24) and written.outputs == ("logits",)
    assert written.difference < 1e-4
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert network.training and network.memory == "reversible"
    network.eval()
    for count in (1, 5):  # neither the number that was traced nor the one that was checked
        images = torch.randn(count, 1, 16, 24)
        (logits,) = FORMATS[file_format].run(path, images)
        torch.testing.assert_close(logits, network(images).detach(), rtol=1e-4, atol=1e-4)
    assert described(path) == {"images": ["batch", 1, 16, 24], "outputs": ["logits"]}
    assert FORMATS[file_format].made(path)
    with pytest.raises(UserError, match="exists already"):
        export_network(network, path, file_format, 16)


def test_a_graph_holds_ordinary_operations_only(tmp_path: Path) -> None:
    path = tmp_path / "network.pt2"
    export_network(settled(RevBiFPN(SMALL)), path, "pt2", 16)
    graph = torch.export.load(path).graph
    targets = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert targets and all(target.startswith("aten.") for target in targets)
    assert not {"aten.item.default", "aten.bernoulli_.float"} & targets


def test_maps_have_names_of_their_strides(tmp_path: Path) -> None:
    network = settled(FeatureNetwork(SMALL, out_indices=(1, 0))).eval()
    path = tmp_path / "maps.pt2"
    written = feldspar.vision.export_network(network, path, "pt2", 16)
    assert written.outputs == ("stride_8", "stride_4")
    images = torch.randn(2, 1, 16, 16)
    for ours, theirs in zip(network(images), FORMATS["pt2"].run(path, images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_run_tells_its_classes(finished_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "stripes.pt2"
    written = export_run(finished_run, path, "pt2")
    assert written.image_shape == (1, 24, 24)
    assert described(path) == {
        "images": ["batch", 1, 24, 24],
        "outputs": ["logits"],
        "classes": ["0", "1", "2"],
        "mean": [0.5],
        "std": [0.5],
    }
    images = torch.randn(4, 1, 24, 24)
    (logits,) = FORMATS["pt2"].run(path, images)
    expected = load_vision_run(finished_run).network(images).detach()
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


class Wavering(ImageClassifier):
    """A network that returns something else each time it is run, as no exported graph does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits that depend on a count of calls."""
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(images) + self.calls


def test_a_file_with_other_values_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="returns other values") as caught:
        export_network(Wavering(SMALL), tmp_path / "network.pt2", "pt2", 16)
    assert "allowed: 0.0001" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_places_and_sizes_that_are_refused(tmp_path: Path) -> None:
    network = ImageClassifier(SMALL)
    other = tmp_path / "notes.txt"
    other.write_text("notes")
    for file_format in FORMATS:
        with pytest.raises(UserError, match=f"is no {file_format} file of feldspar"):
            export_network(network, other, file_format, 16, overwrite=True)
    with pytest.raises(UserError, match="--format hf is not known"):
        export_network(network, tmp_path / "new", "hf", 16)
    with pytest.raises(UserError, match="multiples of 8"):
        export_network(network, tmp_path / "new", "pt2", 20)
    with pytest.raises(UserError, match="image_size: height and width"):
        export_network(network, tmp_path / "new", "pt2")
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_s0_as_onnx_returns_the_same_logits(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = feldspar.vision.create_model("revbifpn_s0", num_classes=10)
    network(torch.randn(4, 3, 64, 64))
    path = tmp_path / "s0.onnx"
    assert export_network(network, path, "onnx").image_shape == (3, 224, 224)
    images = torch.randn(1, 3, 224, 224)
    (logits,) = FORMATS["onnx"].run(path, images)
    torch.testing.assert_close(logits, network.eval()(images).detach(), rtol=1e-4, atol=1e-4)
