"""Weights that a run starts with: those that the authors published, and those of another run."""

import hashlib
from pathlib import Path

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.recipe.load import load_vision_recipe
from feldspar.recipe.sections.vision import RevBiFPNSettings, revbifpn_settings
from feldspar.vision.authors import authors_names, read_authors_weights
from feldspar.vision.load import load_vision_run
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.start import start_network

NAMES = {
    "S0": (1874, "c9c7f4139b4a24264ba3f107ef4cbef1ba5f49b54f5d73474bb083934b04eb4e"),
    "S3": (2366, "f205f2086a49d368a98114aa1c861ff199ef3815ab805a80408e6605c41161b2"),
}
"""Tensors in the state dict of the authors' code, and the SHA-256 of its sorted lines
``name (shape)``, taken from that code."""


@pytest.mark.parametrize("size", NAMES)
def test_names_and_shapes_are_those_of_the_authors_code(size: str) -> None:
    network = RevBiFPN(revbifpn_settings(size))
    names = authors_names(network)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    lines = sorted(f"{names[name]} {shape}" for name, shape in shapes.items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert (len(lines), digest) == NAMES[size]


TINY = {
    "channels": (48, 64),
    "neck_channels": (16, 24),
    "head_width": 32,
    "classes": 4,
    "residual_layers": 1,
    "extra_silos": 1,
}


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, RevBiFPN]:
    """A file as the authors write theirs, and the network whose weights it holds."""
    settings = RevBiFPNSettings.model_validate(TINY)
    network = RevBiFPN(settings, seed=5)
    network(torch.randn(2, 3, 16, 16))  # statistics that differ from their initial values
    state = network.state_dict()
    names = authors_names(network)
    path = tmp_path / "revbifpn.pth.tar"
    torch.save({names[name]: value for name, value in state.items()}, path)
    return path, network


def recipe_starting(recipe_file: Path, *overrides: str):
    shape = [f"model.{key}={list(v) if isinstance(v, tuple) else v}" for key, v in TINY.items()]
    given = [*shape, "model.image_channels=3", *overrides]
    return load_vision_recipe(str(recipe_file), given).recipe


def test_published_weights_are_read_under_our_names(
    published: tuple[Path, RevBiFPN], recipe_file: Path
) -> None:
    path, network = published
    start = f"start_from={{type: authors, path: {path}}}"
    recipe = recipe_starting(recipe_file, start)
    started = RevBiFPN(recipe.model)
    start_network(started, recipe)
    for name, value in network.state_dict().items():
        assert torch.equal(started.state_dict()[name], value), name


def test_a_classifier_of_other_classes_starts_anew(
    published: tuple[Path, RevBiFPN], recipe_file: Path
) -> None:
    path, network = published
    start = f"start_from={{type: authors, path: {path}}}"
    recipe = recipe_starting(recipe_file, start, "model.classes=3")
    started = RevBiFPN(recipe.model, seed=9)
    own = started.classifier.weight.detach().clone()
    start_network(started, recipe)
    assert torch.equal(started.classifier.weight, own)
    final = "final.convolution.weight"
    assert torch.equal(started.state_dict()[final], network.state_dict()[final])


def test_what_is_no_such_checkpoint_is_refused(
    published: tuple[Path, RevBiFPN], tmp_path: Path
) -> None:
    path, network = published
    deeper = RevBiFPN(network.settings.model_copy(update={"extra_silos": 2}))
    with pytest.raises(UserError, match="not the authors' checkpoint of this network") as caught:
        read_authors_weights(path, deeper)
    assert "tensors are missing" in str(caught.value)
    (tmp_path / "text").write_text("no weights")
    for name, message in (("text", "cannot be read as weights"), ("absent", "cannot be read")):
        with pytest.raises(UserError, match=message):
            read_authors_weights(tmp_path / name, network)
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(UserError, match="holds no state dict"):
        read_authors_weights(tmp_path / "list", network)
    torch.save({"run": print}, tmp_path / "code")
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_authors_weights(tmp_path / "code", network)


def test_a_run_starts_from_another_runs_average(finished_run: Path, recipe_file: Path) -> None:
    start = f"start_from={{type: run, path: {finished_run}}}"
    recipe = load_vision_recipe(str(recipe_file), [start]).recipe
    network = RevBiFPN(recipe.model)
    start_network(network, recipe)
    averaged = load_vision_run(finished_run).network.state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, averaged[name])
    wider = load_vision_recipe(str(recipe_file), [start, "model.head_width=64"]).recipe
    with pytest.raises(UserError, match=r"does not fit the network at final.convolution.weight"):
        start_network(RevBiFPN(wider.model), wider)
    deeper = load_vision_recipe(str(recipe_file), [start, "model.extra_silos=0"]).recipe
    with pytest.raises(UserError, match=r"which the network lacks|does not fit the network"):
        start_network(RevBiFPN(deeper.model), deeper)
