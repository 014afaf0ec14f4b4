"""Runs whose masked matrices are multiplied by their kept entries only."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from feldspar.core.records import read_records
from feldspar.sparsity import choice, products
from feldspar.sparsity.kernels.compiled import compiled
from feldspar.train import masked_products
from tests.train.sparsity.conftest import KEEP_ALL, checkpoint, run

pytestmark = pytest.mark.skipif(compiled() is None, reason="no sparse products on this machine")
KEPT = "runtime.masked_products=sparse"
ZEROS_TOO = "runtime.masked_products=dense"
STATIC = "phases.0.sparsity={type: static, sparsity: 0.75, block: [4, 1]}"
ALONE = "phases.0.sparsity={type: static, sparsity: 0.75}"
MOVES = "sparsity: 0.75, every: 2 steps, end: 100% of phase"
RIGL = f"phases.0.sparsity={{type: rigl, block: [4, 1], {MOVES}}}"
SET = f"phases.0.sparsity={{type: set, {MOVES}}}"
GRADUAL = f"phases.0.sparsity={{type: gradual, initial_sparsity: 0.3, {MOVES}}}"
RESIDUE = 1e-5
"""Relative difference of losses after some steps: rounding of float32, grown by training."""


def chosen(out: Path) -> list[str]:
    return checkpoint(out).state["sparse_products"]["matrices"]


@pytest.mark.parametrize(
    ("sparsity", "variant"),
    [
        (STATIC, ()),
        (ALONE, ("model.feed_forward=swiglu", "model.n_kv_heads=1")),
        (RIGL, ("runtime.activation_memory=recompute", "runtime.micro_batch_sequences=1")),
        (SET, ("model.bias=true",)),
    ],
    ids=["blocks", "swiglu-gqa", "recompute-accumulate", "biases"],
)
def test_losses_are_those_of_masked_dense_products(
    recipe_file: Path, tmp_path: Path, sparsity: str, variant: tuple[str, ...]
) -> None:
    sparse = run(recipe_file, tmp_path / "sparse", sparsity, KEPT, *variant)
    dense = run(recipe_file, tmp_path / "dense", sparsity, ZEROS_TOO, *variant)
    assert len(chosen(tmp_path / "sparse")) == 8
    assert not chosen(tmp_path / "dense")
    assert sparse == pytest.approx(dense, rel=RESIDUE)
    assert sparse != dense


def test_the_noise_scale_sees_the_same_gradients(recipe_file: Path, tmp_path: Path) -> None:
    measured = "noise_scale={coverage: norm}"
    found = {}
    for name, how in (("sparse", KEPT), ("dense", ZEROS_TOO)):
        run(recipe_file, tmp_path / name, STATIC, how, measured)
        records = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()]
        found[name] = [
            value
            for record in records
            for key, value in record.items()
            if key.startswith("noise_scale") and isinstance(value, float)
        ]
    assert found["sparse"]
    assert found["sparse"] == pytest.approx(found["dense"], rel=1e-3)


@pytest.mark.parametrize("sparsity", [STATIC, RIGL])
def test_a_resumed_run_has_the_same_bits_and_makes_no_new_choice(
    recipe_file: Path, tmp_path: Path, sparsity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    losses = run(recipe_file, out, sparsity, KEPT, KEEP_ALL)
    weights = (checkpoint(out).folder / "model.safetensors").read_bytes()
    for saved in (checkpoint(out, 12), checkpoint(out, 8)):
        shutil.rmtree(saved.folder)

    def refuse(*arguments: object) -> None:
        raise AssertionError("products are chosen again")

    monkeypatch.setattr(masked_products.MaskedProducts, "choose", refuse)
    assert run(recipe_file, out, sparsity, KEPT, KEEP_ALL) == losses
    assert (checkpoint(out).folder / "model.safetensors").read_bytes() == weights


def test_the_choice_is_measured_and_recorded(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "SMALLEST", 0)
    run(recipe_file, tmp_path / "run", STATIC)
    (event,) = [
        record
        for record in read_records(tmp_path / "run" / "events.jsonl")
        if record["event"] == "products"
    ]
    faster = {
        (tried["rows"], tried["columns"])
        for tried in event["tried"]
        if tried["times_as_fast"] > choice.WORTH
    }
    assert len(event["tried"]) == 4
    weights = checkpoint(tmp_path / "run").read_model()
    assert set(event["matrices"]) == set(chosen(tmp_path / "run"))
    assert {tuple(weights[name].shape) for name in event["matrices"]} == faster


@pytest.mark.parametrize("sparsity", [STATIC, RIGL])
def test_skipped_flops_are_those_of_masked_entries(
    recipe_file: Path, tmp_path: Path, sparsity: str
) -> None:
    run(recipe_file, tmp_path / "run", sparsity, KEPT)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    weights = checkpoint(tmp_path / "run").read_model()
    dropped = sum(weights[name].numel() * 3 // 4 for name in chosen(tmp_path / "run"))
    moved = [record["step"] for record in records if record.get("masks/grown")]
    for record in records:
        dense = record["step"] in moved  # steps that read gradients of all entries
        assert record.get("skipped_flops_per_token", 0) == (0 if dense else 6 * dropped)
    assert bool(moved) is (sparsity == RIGL)


def test_small_matrices_are_multiplied_dense(recipe_file: Path, tmp_path: Path) -> None:
    run(recipe_file, tmp_path / "run", STATIC)
    assert not chosen(tmp_path / "run")


def test_pruned_matrices_are_multiplied_sparse_once_they_are_sparse(
    recipe_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    mup = "parametrization.type=mup"
    sparse = run(recipe_file, out, GRADUAL, KEPT, mup, "checkpoints.every=1 steps", KEEP_ALL)
    kept = [checkpoint(out, step).state["sparse_products"]["kept"] for step in (1, 8)]
    assert kept[1] < kept[0]
    assert sparse == pytest.approx(
        run(recipe_file, tmp_path / "dense", GRADUAL, ZEROS_TOO, mup), rel=RESIDUE
    )


def test_masks_that_are_dropped_drop_the_products(recipe_file: Path, tmp_path: Path) -> None:
    later = ("phases.1.sparsity=dense", "phases.1.optimizer_state=fresh")
    run(recipe_file, tmp_path / "run", STATIC, KEPT, *later)
    assert "sparse_products" not in checkpoint(tmp_path / "run").state


def test_a_machine_without_sparse_products_goes_on_dense(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    losses = run(recipe_file, out, STATIC, KEPT, KEEP_ALL)
    shutil.rmtree(checkpoint(out, 12).folder)
    monkeypatch.setattr(products, "compiled", lambda: None)
    told: list[str] = []
    monkeypatch.setattr(masked_products, "say", told.append)
    assert run(recipe_file, out, STATIC, KEPT, KEEP_ALL) == pytest.approx(losses, rel=RESIDUE)
    assert "8 matrices that the run has multiplied sparse" in told[0]


def test_speeds_are_those_of_forward_and_backward() -> None:
    mask = torch.zeros(512, 512, dtype=torch.bool)
    mask[:4] = True
    device = torch.device("cpu")
    product = products.sparse_product(mask, torch.float32, device)
    assert product is not None
    speed = products.measure(product, mask, 1024, torch.float32, device)
    assert speed.tokens == 1024
    assert speed.ratio > 1
