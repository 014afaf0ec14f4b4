"""Muon: which parameters it updates and how, its state, masks, exact resume and processes."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from feldspar.core.rows import Role
from feldspar.model.decoder import Decoder
from feldspar.parametrization.application import apply
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.optimizer import MuonSettings, OptimizerSettings
from feldspar.runtime.checkpoint import MODEL, OPTIMIZER
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.train.load import load_run
from feldspar.train.optimizer import Optimizer
from feldspar.train.run import train
from tests.train.conftest import Command, losses_of
from tests.train.sparsity.conftest import KEEP_ALL, SPARSE, assert_zeros, drawn
from tests.train.test_distributed import torchrun

MUON = "optimizer={type: muon, learning_rate_ratio: 2.0}"


def planned(recipe: Path, *overrides: str) -> Plan:
    return plan_recipe(load_recipe(str(recipe), [MUON, *overrides]).recipe)


def made(plan: Plan) -> tuple[Decoder, Optimizer]:
    """Build the model of a plan, its optimizer, and a gradient of random numbers."""
    decoder = Decoder(plan.recipe.model)
    optimizer = Optimizer(apply(decoder, plan.table, seed=1), plan.recipe.optimizer)
    chance = torch.Generator().manual_seed(7)
    for parameter in decoder.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=chance)
    return decoder, optimizer


def run(recipe: Path, out: Path, *overrides: str) -> list[float]:
    train(load_recipe(str(recipe), [MUON, *overrides]), out)
    return losses_of(out)


def last_tensors(out: Path, part: str) -> dict[str, torch.Tensor]:
    """Read the tensors of a run's last checkpoint."""
    files = CheckpointStore(out / "checkpoints").all()[-1].files_of(part)
    return dict(files)


def test_a_recipe_without_a_type_is_of_adamw(recipe_file: Path) -> None:
    chosen = [
        load_recipe(str(recipe_file), overrides).recipe.optimizer
        for overrides in ([], ["optimizer={epsilon: 1e-9}"], ["optimizer=muon"])
    ]
    assert [type(settings) for settings in chosen] == [
        OptimizerSettings,
        OptimizerSettings,
        MuonSettings,
    ]


def test_matrices_of_blocks_have_one_moment_and_the_rest_is_adamws(recipe_file: Path) -> None:
    plan = planned(recipe_file)
    _, optimizer = made(plan)
    state = optimizer.state()
    matrices = [row for row in plan.shapes.rows if row.role is Role.HIDDEN]
    others = [row for row in plan.shapes.rows if row.role is not Role.HIDDEN]
    assert len(matrices) == 8 and others
    expected = {f"momentum_buffer/{row.name}" for row in matrices}
    keys = ("step", "exp_avg", "exp_avg_sq")
    expected |= {f"{key}/{row.name}" for key in keys for row in others}
    assert state.keys() == expected
    assert plan.memory().optimizer_bytes == sum(tensor.nbytes for tensor in state.values())


@pytest.mark.parametrize("adjustment", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("clip_norm", ["0.5", "none"])
def test_an_update_is_orthogonal_in_the_space_of_its_gradient(
    recipe_file: Path, adjustment: str, clip_norm: str
) -> None:
    """Against the singular vectors of the gradient, which no iteration has made."""
    settings = [f"optimizer.adjustment={adjustment}", f"optimizer.clip_norm={clip_norm}"]
    plan = planned(recipe_file, *settings)
    decoder, optimizer = made(plan)
    rate, decay = 0.1, 0.3
    before = {name: value.detach().clone() for name, value in decoder.named_parameters()}
    gradients = {name: value.grad for name, value in decoder.named_parameters()}
    optimizer.set_rates(rate, decay)
    optimizer.step(optimizer.gradient_norm())
    for name, value in decoder.named_parameters():
        entry = plan.table.entry(name)
        if entry.role is not Role.HIDDEN:
            continue
        rows, columns = entry.shape
        own = rate * entry.learning_rate_multiplier
        shape = {
            "original": math.sqrt(max(1.0, rows / columns)),
            "match_rms_adamw": 0.2 * math.sqrt(max(rows, columns)),
        }[adjustment]
        decayed = before[name] * (1 - own * decay)
        update = (decayed - value.detach()).double() / (own * shape)
        gradient = gradients[name]
        assert gradient is not None
        left, _, right = torch.linalg.svd(gradient.double(), full_matrices=False)
        inside = left.T @ update @ right.T
        sizes = inside.diagonal()
        # The coefficients of the quintic were chosen for singular values within 0.3 of 1 (Jordan
        # 2024, kellerjordan.github.io/posts/muon); bfloat16 rounds in each of fifteen products.
        rounding = 15 * torch.finfo(torch.bfloat16).eps
        assert float((sizes - 1).abs().max()) < 0.3 + rounding
        beside = inside - torch.diag(sizes)
        assert float(torch.linalg.matrix_norm(beside, 2)) < rounding
        assert entry.weight_decay_multiplier == 1.0


def test_the_rest_moves_as_under_adamw_alone(recipe_file: Path) -> None:
    decoder, optimizer = made(planned(recipe_file, "optimizer.clip_norm=none"))
    other, alone = made(planned(recipe_file, "optimizer={type: adamw, clip_norm: none}"))
    for one in (optimizer, alone):
        one.set_rates(0.1, 0.3)
        one.step(one.gradient_norm())
    twins = dict(other.named_parameters())
    roles = {row.name: row.role for row in planned(recipe_file).shapes.rows}
    for name, value in decoder.named_parameters():
        assert torch.equal(value, twins[name]) == (roles[name] is not Role.HIDDEN), name


@pytest.mark.parametrize(("adjustment", "power"), [("original", 0.0), ("match_rms_adamw", 0.5)])
def test_rates_of_matrices_fall_by_their_own_power_of_width(
    recipe_file: Path, adjustment: str, power: float
) -> None:
    table = planned(recipe_file, f"optimizer.adjustment={adjustment}").table
    rates = {entry.role: entry.learning_rate_multiplier for entry in table.tensors}
    # The model is twice as wide as the base.
    assert rates[Role.HIDDEN] == pytest.approx(2.0 / 2.0**power)
    assert rates[Role.EMBEDDING] == rates[Role.NORM] == 1.0


def test_the_loss_falls_and_a_stopped_run_goes_on_to_the_same_bits(
    recipe_file: Path, tmp_path: Path
) -> None:
    whole = run(recipe_file, tmp_path / "whole", KEEP_ALL)
    assert sum(whole[-4:]) < sum(whole[:4]) - 1
    halves = Path(shutil.copytree(tmp_path / "whole", tmp_path / "halves"))
    for one in CheckpointStore(halves / "checkpoints").all()[3:]:
        shutil.rmtree(one.folder)
    assert run(recipe_file, halves, KEEP_ALL) == whole
    for part in (MODEL, OPTIMIZER):
        first, second = (last_tensors(tmp_path / name, part) for name in ("whole", "halves"))
        assert first.keys() == second.keys()
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_masked_weights_and_momentum_stay_zero(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    sparse = ("parametrization.type=supar", SPARSE, KEEP_ALL)
    losses = run(recipe_file, out, *sparse)
    assert losses[-1] < losses[0]
    masks = drawn(recipe_file, SPARSE)
    assert_zeros(last_tensors(out, MODEL), masks)
    assert_zeros(last_tensors(out, OPTIMIZER), masks, "momentum_buffer/")
    load_run(out)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_reach_the_loss_of_one(
    recipe_file: Path, tmp_path: Path, feldspar: Command, kind: str
) -> None:
    one = feldspar("train", recipe_file, MUON, "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    result = torchrun(recipe_file, tmp_path / kind, MUON, f"runtime.distribution={kind}")
    assert result.returncode == 0, result.stderr
    first, second = losses_of(tmp_path / "one"), losses_of(tmp_path / kind)
    assert len(second) == 36
    # Sums in another order move an entry of an update by a rounding of bfloat16 at most, and the
    # loss by as large a share of what the updates gained.
    share = torch.finfo(torch.bfloat16).eps / 2
    assert second == pytest.approx(first, rel=0, abs=share * (first[0] - min(first)))
