"""A recipe of a tiny network over pictures of stripes, in two phases of resolution."""

import shutil
from pathlib import Path

import pytest

from feldspar.recipe.load import load_vision_recipe
from feldspar.vision.run import train_on_images
from tests.train.conftest import feldspar  # noqa: F401 - a fixture
from tests.vision.pictures import some_pictures, write_split

RECIPE = """
schema_version: 1
name: stripes
seed: 3
images: {{format: idx, train: {data}/train, validation: {data}/held-out}}
model: {{channels: [16, 24], neck_channels: [16, 24], head_width: 32, classes: 3, image_channels: 1,
        residual_layers: 1, extra_silos: 1, dropout: 0.1, stochastic_depth: 0.2}}
task: {{type: classification, label_smoothing: 0.1}}
parametrization: {{learning_rate: 0.1}}
optimizer: {{type: sgd}}
schedule: {{learning_rate: [{{to: 1, over: 20% of run}}, {{to: 0, over: rest, shape: cosine}}]}}
phases:
  - {{name: coarse, length: 6 steps, resolution: 16, batch: {{images: 12}}}}
  - {{name: fine, length: 2 epochs, resolution: 24, batch: {{images: 16}}}}
augmentation:
  crop: {{type: random_resized, area: [0.5, 1]}}
  flip: 0.5
  rand_augment: {{magnitude: 3}}
  erase: 0.2
  mixup: 0.2
  cutmix: 0.5
average_weights: {{decay: 0.8}}
checkpoints: {{every: 5 steps, keep: {{last: 99}}}}
evaluation: {{every: 6 steps, crop: 1.0}}
runtime: {{trackers: [], threads: 1}}
"""


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's files of 96 training pictures and 24 that are held out."""
    root = tmp_path_factory.mktemp("pictures")
    write_split(root / "train", *some_pictures(1, 96), ending=".gz")
    write_split(root / "held-out", *some_pictures(2, 24))
    return root


@pytest.fixture(scope="session")
def finished_run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe trained to its end, with every checkpoint; not to be changed."""
    root = tmp_path_factory.mktemp("finished")
    (root / "stripes.yaml").write_text(RECIPE.format(data=pictures))
    train_on_images(load_vision_recipe(str(root / "stripes.yaml")), root / "run")
    return root / "run"


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def recipe_file(pictures: Path, tmp_path: Path) -> Path:
    """The recipe as a file."""
    path = tmp_path / "stripes.yaml"
    path.write_text(RECIPE.format(data=pictures))
    return path
