"""Masks in blocks, by layer and by pattern: trained, counted, resumed, exported, refused."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from feldspar.core.errors import UserError
from feldspar.plan.summary import plan_recipe
from feldspar.sparsity.saved import digest_of_masks
from feldspar.train.load import load_run
from tests.train.conftest import losses_of
from tests.train.sparsity.conftest import (
    KEEP_ALL,
    assert_zeros,
    checkpoint,
    drawn,
    forget_newest,
    recipe_of,
    run,
)

SETTINGS = {
    "blocks": "{type: static, sparsity: 0.75, block: [4, 1]}",
    "layers": "{type: static, sparsity: 0.6, block: [4, 4], distribution: erk}",
    "pattern": "{type: static, sparsity: 0.5, pattern: 2:4}",
}


def phase(settings: str) -> str:
    return f"phases.0.sparsity={settings}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the finished run of each kind of mask."""
    return tmp_path_factory.mktemp("structured")


@pytest.fixture
def finished(request: pytest.FixtureRequest, runs: Path, recipe_file: Path) -> tuple[Path, str]:
    """A finished run with the masks that the test asks for, and its override."""
    override = phase(SETTINGS[request.param])
    out = runs / request.param
    if not out.exists():
        run(recipe_file, out, override, KEEP_ALL)
    return out, override


every_kind = pytest.mark.parametrize("finished", SETTINGS, indirect=True)


@every_kind
def test_what_is_planned_is_what_is_trained(recipe_file: Path, finished: tuple[Path, str]) -> None:
    out, override = finished
    masks, loaded = drawn(recipe_file, override), load_run(out)
    assert digest_of_masks(loaded.masks) == digest_of_masks(masks)
    assert loaded.masks.settings == recipe_of(recipe_file, override).sparsity(0)
    assert_zeros(checkpoint(out).read_model(), masks)
    moments = load_file(checkpoint(out).folder / "optimizer.safetensors")
    for name, mask in masks.tensors.items():
        for moment in ("exp_avg", "exp_avg_sq"):
            assert not moments[f"{moment}/{name}"][~mask].any()
            # The gradient is zero too in rows that feed a unit which no kept entry reads.
            assert moments[f"{moment}/{name}"][mask].count_nonzero() > 0.8 * mask.sum()

    plan = plan_recipe(recipe_of(recipe_file, override))
    for entry in plan.table.tensors:
        assert entry.density == pytest.approx(loaded.masks.density(entry.name), rel=1e-12)
    zeros = sum(int((~mask).sum()) for mask in masks.tensors.values())
    assert plan.active_parameters(0) == plan.shapes.parameters - zeros
    kept = sum(int(mask.sum()) for mask in masks.tensors.values())
    (first, _) = plan.summary()["phases"]
    assert first["ledger"]["matrices"] == 3 * 2 * kept * first["tokens"]
    started = json.loads((out / "events.jsonl").read_text().splitlines()[0])["masks"]
    assert (started["kept"], started["entries"]) == (kept, kept + zeros)


@every_kind
def test_a_resumed_run_goes_on_bit_for_bit(
    recipe_file: Path, finished: tuple[Path, str], tmp_path: Path
) -> None:
    out, override = finished
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    forget_newest(copy)
    assert run(recipe_file, copy, override, KEEP_ALL) == losses_of(out)


@pytest.mark.parametrize(
    ("finished", "other", "message"),
    [
        ("blocks", "{type: static, sparsity: 0.75, block: [1, 4]}", r"block\.0: 4 -> 1"),
        ("blocks", "{type: static, sparsity: 0.75}", r"block: \[4, 1\] -> None"),
        ("layers", SETTINGS["layers"].replace("erk", "uniform"), "distribution: erk -> "),
        ("pattern", "{type: static, sparsity: 0.5}", "pattern: 2:4 -> "),
        ("pattern", "{type: static, sparsity: 0.5, pattern: 4:8}", "pattern: 2:4 -> 4:8"),
    ],
    indirect=["finished"],
)
def test_other_masks_are_refused_on_resume(
    recipe_file: Path, finished: tuple[Path, str], other: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run(recipe_file, finished[0], phase(other), KEEP_ALL)
    assert caught.value.exit_code == 2
