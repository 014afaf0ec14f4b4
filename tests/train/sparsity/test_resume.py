"""Masks and a kill: the checkpoint brings them back; damaged and other ones are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from feldspar.core.errors import RunError, UserError
from feldspar.core.manifest import read_manifest, records_of, write_manifest
from feldspar.sparsity.masks import Masks
from feldspar.train.load import load_run
from tests.train.conftest import losses_of
from tests.train.sparsity.conftest import KEEP_ALL, SPARSE, checkpoint, drawn, forget_newest, run


def test_a_resumed_run_takes_the_masks_of_its_checkpoint(
    recipe_file: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = losses_of(copy)
    forget_newest(copy)

    def refuse(*arguments: object) -> None:
        raise AssertionError("masks are drawn again")

    monkeypatch.setattr(Masks, "draw", refuse)
    assert run(recipe_file, copy, SPARSE, KEEP_ALL) == losses


def test_another_sparsity_is_refused_on_resume(recipe_file: Path, copy: Path) -> None:
    with pytest.raises(UserError, match=r"phases\.0\.sparsity\.sparsity: 0\.75 -> 0\.5"):
        run(recipe_file, copy, SPARSE.replace("0.75", "0.5"), KEEP_ALL)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def sign_again(folder: Path) -> None:
    manifest = read_manifest(folder, "checkpoint")
    write_manifest(folder, replace(manifest, files=records_of(folder)))


def test_a_flipped_mask_bit_is_refused(recipe_file: Path, copy: Path) -> None:
    losses = losses_of(copy)
    flip_a_bit(checkpoint(copy).folder / "tensors.safetensors")
    assert "tensors.safetensors" in checkpoint(copy).problems()[0]
    assert run(recipe_file, copy, SPARSE, KEEP_ALL) == losses  # from the checkpoint before
    flip_a_bit(checkpoint(copy).folder / "tensors.safetensors")
    sign_again(checkpoint(copy).folder)
    for use in (lambda: load_run(copy), lambda: run(recipe_file, copy, SPARSE, KEEP_ALL)):
        with pytest.raises(RunError, match=r"the mask of blocks\..* is not the one that was saved"):
            use()


def test_a_weight_under_a_mask_is_refused(recipe_file: Path, copy: Path, tmp_path: Path) -> None:
    name = "blocks.1.feed_forward.input.weight"
    file = checkpoint(copy).folder / "model.safetensors"
    tensors = load_file(file)
    zeros = (~drawn(recipe_file, SPARSE).tensors[name]).nonzero()
    tensors[name][tuple(zeros[5])] = 1e-30
    save_file(tensors, file)
    sign_again(checkpoint(copy).folder)
    start = f"start_from={{type: run, path: {copy}}}"
    for use in (
        lambda: load_run(copy),
        lambda: run(recipe_file, copy, SPARSE, KEEP_ALL),
        lambda: run(recipe_file, tmp_path / "next", start),
    ):
        with pytest.raises(
            RunError, match=f"{name} has 1 nonzero weights where its mask requires zeros"
        ):
            use()


def test_a_sparse_run_without_masks_is_refused(copy: Path) -> None:
    folder = checkpoint(copy).folder
    (folder / "tensors.safetensors").unlink()
    state = json.loads((folder / "state.json").read_text())
    del state["sparsity"]
    (folder / "state.json").write_text(json.dumps(state))
    sign_again(folder)
    with pytest.raises(RunError, match="holds no masks, though its phase is sparse"):
        load_run(copy)
