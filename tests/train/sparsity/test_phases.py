"""Masks from phase to phase and from run to run: dropped, carried, frozen, drawn anew."""

from pathlib import Path

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.core.rows import ParameterRow, Role
from feldspar.model.decoder import Decoder
from feldspar.parametrization.application import ParameterGroup, apply
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.sections.optimizer import OptimizerSettings
from feldspar.sparsity.saved import digest_of_masks
from feldspar.train.load import load_run
from feldspar.train.optimizer import Optimizer
from tests.train.conftest import losses_of, metrics_of
from tests.train.sparsity.conftest import (
    DENSE_LATER,
    KEEP_ALL,
    SPARSE,
    SWITCH,
    assert_zeros,
    checkpoint,
    drawn,
    forget_newest,
    recipe_of,
    run,
)


def test_a_dense_phase_revives_entries_from_zero(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(
        recipe_file,
        out,
        SPARSE,
        *DENSE_LATER,
        KEEP_ALL,
        "checkpoints.every=1 steps",
        "optimizer.epsilon=1e-20",
    )
    masks = drawn(recipe_file, SPARSE)
    before, after = (checkpoint(out, step).read_model() for step in (SWITCH, SWITCH + 1))
    assert_zeros(before, masks)
    rate = metrics_of(out)[SWITCH]["learning_rate"]
    for name, mask in masks.tensors.items():
        # Fresh moments move every entry by the rate itself: twice as wide as the base, dense.
        share = 1 / 2
        moved = after[name][~mask].abs()
        assert moved.max().item() == pytest.approx(rate * share, rel=1e-4)
        assert moved[moved > 0].min().item() == pytest.approx(rate * share, rel=1e-4)
        assert (moved > 0).float().mean() > 0.95
    assert load_run(out).masks.tensors == {}
    assert load_run(out, str(128 * SWITCH)).masks.tensors.keys() == masks.tensors.keys()
    whole = losses_of(out)
    for _ in range(2):
        forget_newest(out)
    assert run(recipe_file, out, SPARSE, *DENSE_LATER, KEEP_ALL, "optimizer.epsilon=1e-20") == whole


def test_the_sparse_phase_has_the_rates_of_its_density(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, SPARSE, "phases.0.length=1 steps", "optimizer.epsilon=1e-20", KEEP_ALL)
    masks = drawn(recipe_file, SPARSE)
    recipe = recipe_of(recipe_file, SPARSE)
    decoder = Decoder(recipe.model)
    apply(decoder, plan_recipe(recipe).table, recipe.seed)
    start, after = dict(decoder.named_parameters()), checkpoint(out, 1).read_model()
    rate = metrics_of(out)[0]["learning_rate"]
    for name, mask in masks.tensors.items():
        decayed = start[name] * (1 - 2 * rate * 0.1)  # 2 = 1 / (width 2, density 1/4)
        moved = (after[name] - decayed)[mask].abs()
        assert moved.max().item() == pytest.approx(2 * rate, rel=1e-3)


def test_frozen_matrices_are_masked_and_stay_so(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, SPARSE, "phases.0.trainable=[embedding, output, position]", KEEP_ALL)
    masks = drawn(recipe_file, SPARSE)
    at_switch, end = checkpoint(out, SWITCH).read_model(), checkpoint(out).read_model()
    assert_zeros(at_switch, masks)
    assert_zeros(end, masks)
    for name in masks.tensors:
        assert not torch.equal(at_switch[name], end[name]), "trained in the second phase"


def test_a_run_starts_with_the_masks_of_another(
    recipe_file: Path, sparse_run: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    start = f"start_from={{type: run, path: {sparse_run}}}"
    assert run(recipe_file, second, start, "seed=9")[0] < losses_of(sparse_run)[0] - 0.2
    masks = drawn(recipe_file, SPARSE)
    carried = load_run(second)
    assert digest_of_masks(carried.masks) == digest_of_masks(masks)
    assert carried.masks.seed == 3, "what they were drawn from"
    assert carried.recipe.sparsity(1) == masks.settings, "the resolved recipe says so"
    assert_zeros(checkpoint(second).read_model(), masks)
    table = plan_recipe(carried.recipe).table
    rates = {entry.learning_rate_multiplier for entry in table.tensors}
    assert max(rates) == 2, "the table follows the carried density"
    # The same again is no change; nor is a run that starts from one that was started so.
    forget_newest(second)
    run(recipe_file, second, start, "seed=9")
    third = tmp_path / "third"
    run(recipe_file, third, f"start_from={{type: run, path: {second}}}", SPARSE)
    assert digest_of_masks(load_run(third).masks) == digest_of_masks(masks)


def test_a_run_starts_dense_from_a_sparse_one(
    recipe_file: Path, sparse_run: Path, tmp_path: Path
) -> None:
    start = f"start_from={{type: run, path: {sparse_run}}}"
    run(recipe_file, tmp_path / "dense", start, "phases.0.sparsity=dense")
    assert load_run(tmp_path / "dense").masks.tensors == {}
    with pytest.raises(UserError, match=r"phases\.0\.sparsity: .* has other masks") as caught:
        run(recipe_file, tmp_path / "other", start, SPARSE.replace("0.75", "0.5"))
    assert caught.value.found == "sparsity there 0.75, here 0.5"
    with pytest.raises(UserError, match="has other masks") as caught:
        run(recipe_file, tmp_path / "other", start, SPARSE.replace("0.75", "0.75, block: [2, 1]"))
    assert caught.value.found == "block there (1, 1), here (2, 1)"
    with pytest.raises(UserError, match=r"phases\.1\.optimizer_state: this phase drops the masks"):
        run(recipe_file, tmp_path / "kept", start, "phases.1.sparsity=dense")
    # Dense weights that a sparse phase starts from are masked.
    again = f"start_from={{type: run, path: {tmp_path / 'dense'}}}"
    run(recipe_file, tmp_path / "again", again, SPARSE)
    assert_zeros(checkpoint(tmp_path / "again").read_model(), drawn(recipe_file, SPARSE))


@pytest.mark.parametrize(
    ("betas", "factor"), [((0.9, 0.999), 3.1623), ((0.9, 0.95), 0.4472)], ids=str
)
def test_kept_moments_would_move_revived_entries_by_another_step(
    betas: tuple[float, float], factor: float
) -> None:
    """Why dropped masks need fresh moments: theirs are zero, but their steps are counted."""
    weight = torch.nn.Parameter(torch.zeros(3))
    settings = OptimizerSettings(betas=betas, epsilon=1e-30, clip_norm="none")
    rule = settings.rule(ParameterRow("weight", Role.HIDDEN, (3,)))
    group = ParameterGroup(("weight",), (weight,), 1.0, 0.0, 1.0, rule)
    for kept, expected in ((True, factor), (False, 1.0)):
        with torch.no_grad():
            weight.zero_()
        optimizer = Optimizer([group], settings)
        if kept:
            optimizer.state()["step/weight"].fill_(1e6)
        weight.grad = torch.tensor([1.0, -2.0, 0.5])
        optimizer.set_rates(1e-2, 0.0)
        optimizer.step(optimizer.gradient_norm())
        moved = (weight.detach() / -torch.sign(weight.grad)).tolist()
        assert moved == pytest.approx([1e-2 * expected] * 3, rel=1e-4)
