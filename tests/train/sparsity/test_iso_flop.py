"""Sparse-IFT models are trained, stopped, resumed, read and exported (2303.11525)."""

from pathlib import Path

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.release.export_run import export_run
from feldspar.sparsity.kernels.compiled import compiled
from feldspar.train.load import load_run
from tests.train.conftest import losses_of
from tests.train.sparsity.conftest import (
    BASE,
    DENSE_LATER,
    KEEP_ALL,
    assert_zeros,
    forget_newest,
    recipe_of,
    run,
)
from tests.train.test_distributed import torchrun

MEMBERS = ("wide", "parallel", "factorized", "doped")
FEW_STEPS = ("phases.0.length=4 steps", "phases.1.length=2 steps")


@pytest.fixture(params=MEMBERS)
def member(request: pytest.FixtureRequest) -> str:
    """The override that makes a model of two layers of 32 one of Sparse-IFT's members."""
    return override(request.param)


def override(member: str) -> str:
    return f"model.sparse_iso_flop={{type: {member}, sparsity: 0.75}}"


def test_a_run_that_was_stopped_goes_on(recipe_file: Path, tmp_path: Path, member: str) -> None:
    out = tmp_path / "run"
    losses = run(recipe_file, out, member, KEEP_ALL)
    loaded = load_run(out)
    assert loaded.recipe.sparsity(0).type == "static"
    assert_zeros(dict(loaded.decoder.named_parameters()), loaded.masks)
    assert losses[-1] < losses[0]
    forget_newest(out)
    run(recipe_file, out, member, KEEP_ALL)
    assert losses_of(out) == losses


def test_masks_may_move(recipe_file: Path, tmp_path: Path, member: str) -> None:
    out = tmp_path / "run"
    moving = "phases.0.sparsity={type: rigl, sparsity: 0.75, every: 2 steps}"
    run(recipe_file, out, member, moving, *FEW_STEPS)
    loaded = load_run(out)
    assert_zeros(dict(loaded.decoder.named_parameters()), loaded.masks)
    for name in loaded.masks.tensors:
        assert loaded.masks.density(name) == 0.25


@pytest.mark.skipif(compiled() is None, reason="no sparse products on this machine")
def test_products_of_kept_entries_give_the_same_losses(
    recipe_file: Path, tmp_path: Path, member: str
) -> None:
    losses = [
        run(recipe_file, tmp_path / way, member, *FEW_STEPS, f"runtime.masked_products={way}")
        for way in ("dense", "sparse")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_masks_are_dropped_by_a_later_phase(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe_file, out, override("factorized"), *DENSE_LATER, *FEW_STEPS)
    loaded = load_run(out)
    assert not loaded.masks.tensors
    for name, tensor in loaded.decoder.blocks.named_parameters():
        if tensor.dim() == 2:
            assert int((tensor == 0).sum()) < 0.1 * tensor.numel(), name


def test_a_run_of_its_own_goes_on_sparse_or_dense(recipe_file: Path, tmp_path: Path) -> None:
    first, member = tmp_path / "first", override("doped")
    run(recipe_file, first, member, *FEW_STEPS)
    start = f"start_from={{type: run, path: {first}}}"
    run(recipe_file, tmp_path / "sparse", member, start, *FEW_STEPS)
    masks = load_run(first).masks.tensors
    kept = load_run(tmp_path / "sparse").masks.tensors
    assert all(torch.equal(kept[name], masks[name]) for name in masks)
    run(recipe_file, tmp_path / "dense", member, start, "phases.0.sparsity=dense", *FEW_STEPS)
    revived = dict(load_run(tmp_path / "dense").decoder.named_parameters())
    assert all(revived[name][~mask].any() for name, mask in masks.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "member"), [("ddp", "parallel"), ("fsdp", "factorized"), ("fsdp", "doped")]
)
def test_two_processes_reach_the_losses_of_one(
    recipe_file: Path, tmp_path: Path, kind: str, member: str
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    losses = run(recipe_file, one, override(member), *FEW_STEPS)
    options = (*BASE, override(member), *FEW_STEPS, f"runtime.distribution={kind}")
    result = torchrun(recipe_file, two, *options)
    assert result.returncode == 0, result.stderr
    assert losses_of(two) == pytest.approx(losses, rel=1e-5)


def test_an_exported_run_gives_our_logits(recipe_file: Path, tmp_path: Path, member: str) -> None:
    transformers = pytest.importorskip("transformers")
    out = tmp_path / "run"
    run(recipe_file, out, member, *FEW_STEPS)
    written = export_run(out, tmp_path / "exported")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "exported", trust_remote_code=True
    )
    name = "GPT2LMHeadModel" if "wide" in member else "FeldsparForCausalLM"
    assert type(model).__name__ == name
    assert written.d_model == (64 if "wide" in member else 32)
    tokens = torch.arange(12).view(1, 12)
    ours = load_run(out).decoder
    with torch.no_grad():
        expected = ours.logits(ours(tokens))
        found = model(tokens).logits
    torch.testing.assert_close(found, expected[..., : found.shape[-1]], rtol=1e-4, atol=1e-4)


def test_lora_has_no_single_matrix_to_update(recipe_file: Path) -> None:
    lora = "phases.0.lora={rank: 2, alpha: 4}"
    for member in ("parallel", "factorized", "doped"):
        with pytest.raises(UserError, match="lora updates single matrices"):
            recipe_of(recipe_file, override(member), lora)
