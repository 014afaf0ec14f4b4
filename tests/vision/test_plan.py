"""What a vision recipe will cost, and what is wrong with one, before anything is spent."""

import subprocess
import sys
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.explain import explain
from feldspar.recipe.load import load_recipe, load_vision_recipe
from feldspar.recipe.sections.vision import SIZES, RevBiFPNSettings
from feldspar.vision.plan import plan_vision_recipe
from tests.vision.test_network_cost import GOLDEN

PAPER_GMACS = {"S0": 0.31, "S1": 0.62, "S2": 1.37, "S3": 3.33, "S4": 10.6, "S5": 21.8, "S6": 38.1}
"""As the authors print them."""


@pytest.mark.parametrize("size", SIZES)
def test_the_papers_sizes_are_choices_of_one_recipe(size: str) -> None:
    recipe = load_vision_recipe("revbifpn/paper", [f"choose.size={size}"]).recipe
    plan = plan_vision_recipe(recipe)
    phase = plan.summary()["phases"][0]
    assert plan.timeline.parameters == GOLDEN[size][0]
    assert phase["macs"]["paper counter"] == GOLDEN[size][-1]
    assert phase["macs"]["paper counter"] == pytest.approx(PAPER_GMACS[size] * 1e9, rel=0.01)
    assert phase["resolution"] == SIZES[size][0]
    assert phase["epochs"] == pytest.approx(300, abs=0.01)
    assert plan.flops_per_image(0) == 6 * phase["macs"]["conv+linear"]


def test_steps_epochs_and_rates_of_a_recipe(recipe_file: Path) -> None:
    plan = plan_vision_recipe(load_vision_recipe(str(recipe_file)).recipe, 96)
    coarse, fine = plan.summary()["phases"]
    assert (coarse["steps"], coarse["images"], coarse["epochs"]) == (6, 72, 0.75)
    assert (fine["steps"], fine["images"], fine["epochs"]) == (12, 192, 2.0)
    # A fifth of the run, 52 images, warms up; the update of the fifth step ends at 60.
    rates = []
    tokens = 0
    while (step := plan.timeline.next_step(tokens)) is not None:
        rates.append(step.learning_rate)
        tokens = step.position_after
    assert rates[:4] == pytest.approx([0.1 * images / 52 for images in (12, 24, 36, 48)])
    assert rates[-1] == 0 and max(rates) == rates[4]


def test_epochs_need_the_number_of_images(recipe_file: Path) -> None:
    loaded = load_vision_recipe(str(recipe_file))
    with pytest.raises(UserError, match=r"phases.1.length: 2 epochs needs the number of training"):
        plan_vision_recipe(loaded.recipe)
    declared = load_vision_recipe(str(recipe_file), ["images.train_images=96"])
    assert plan_vision_recipe(declared.recipe).timeline.steps == 18


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("phases.0.resolution=20", "phases.0.resolution: 20 is not a multiple of 8.*16 or 24"),
        ("phases.0.batch={tokens: 8}", "phases.0.batch.tokens: unknown key"),
        ("phases.0.length=100 tokens", "phases.0.length: 100 tokens has a unit"),
        ("phases.0.length=100 sequences", "100 sequences has a unit"),
        ("checkpoints.every=2 tokens_per_parameter", "checkpoints.every: .* has a unit"),
        ("phases.0.length=50% of run", "phases.0.length: 50% of run must be an absolute amount"),
        ("phases.0.length=11 images", "11 images is less than one step of 12 images"),
        ("phases.1.name=coarse", "two phases are named 'coarse'"),
        ("images.format=tfrecord", "images.format: unknown format 'tfrecord' .*'folder', 'idx'"),
        ("images.formats=idx", "did you mean 'images.format'"),
        ("images.mean=[0.1, 0.2]", "images.mean: 2 values for 1 channels"),
        ("model.image_channels=4", "model.(image_channels|channels): "),
        ("model.size=S9", "model.size: "),
        ("optimizer.type=adam", "optimizer.type: unknown type 'adam'"),
        ("optimizer.betas=[0.9, 0.99]", "optimizer.betas: unknown key"),
        (
            "optimizer.learning_rate=0.1",
            "optimizer.learning_rate: set the peak learning rate in parametrization.learning_rate",
        ),
        ("task=detection", "images.format: the task detection needs coco or canvases, not idx"),
        ("task=dictation", "task.type: unknown type 'dictation'"),
        ("augmentation.crop={type: random_resized, area: [0.5, 0.1]}", "0.5 is more than 0.1"),
        ("augmentation.flipp=1", "did you mean 'augmentation.flip'"),
        ("runtime.micro_batch_sequences=2", "runtime.micro_batch_sequences: unknown key"),
        ("average_weights.decay=1", "average_weights.decay"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said(
    recipe_file: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        loaded = load_vision_recipe(str(recipe_file), [override])
        plan_vision_recipe(loaded.recipe, 96)


def test_one_image_that_batch_norm_cannot_normalise_is_refused(recipe_file: Path) -> None:
    with pytest.raises(UserError, match=r"phases.0.batch: with one image of 8 pixels"):
        load_vision_recipe(str(recipe_file), ["phases.0.resolution=8", "phases.0.batch.images=1"])


def test_each_kind_of_recipe_has_commands_of_its_own(recipe_file: Path) -> None:
    with pytest.raises(UserError, match="recipe of a vision model"):
        load_recipe(str(recipe_file))
    with pytest.raises(UserError, match="is not a recipe of a vision model"):
        load_vision_recipe("cerebras-gpt/small")
    with pytest.raises(UserError, match=r"phases.0.length: 5 images has a unit"):
        load_recipe("cerebras-gpt/small", ["phases.0.length=5 images"])
    assert explain("augmentation.mixup")[0].startswith("augmentation.mixup: Strength")


def test_a_size_gives_every_key_that_is_not_given_itself() -> None:
    settings = RevBiFPNSettings.model_validate({"size": "S6", "classes": 7, "dropout": 0.1})
    assert settings.channels == SIZES["S6"][1]["channels"]
    assert (settings.classes, settings.dropout, settings.stochastic_depth) == (7, 0.1, 0.3)


def test_narrow_products_without_a_grid_are_warned_of(recipe_file: Path) -> None:
    def warnings(*overrides: str) -> list[str]:
        recipe = load_vision_recipe(str(recipe_file), list(overrides)).recipe
        return plan_vision_recipe(recipe, 96).warnings()

    assert "drift" in warnings("runtime.precision=bfloat16")[0]
    assert not warnings("runtime.precision=bfloat16", "model.fixed_point_bits=14")
    assert not warnings("runtime.precision=bfloat16", "runtime.activation_memory=store")
    assert not warnings()


def test_a_plan_leaves_torchs_compiler_out() -> None:
    """Its import would take longer than the plan."""
    script = (
        "import sys; from feldspar.recipe.load import load_vision_recipe; "
        "from feldspar.vision.plan import plan_vision_recipe; "
        "plan_vision_recipe(load_vision_recipe('revbifpn/paper').recipe).summary(); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
