"""Sparse-IFT models are trained, stopped, resumed, read and exported (2303.11525)."""

from pathlib import Path

import pytest
import torch

from feldspar.release.export_run import export_run
from feldspar.train.load import load_run
from tests.train.conftest import losses_of
from tests.train.sparsity.conftest import KEEP_ALL, assert_zeros, forget_newest, run

MEMBERS = ("wide",)


@pytest.fixture(params=MEMBERS)
def member(request: pytest.FixtureRequest) -> str:
    """The override that makes a model of two layers of 32 one of Sparse-IFT's members."""
    return f"model.iso_flop={{type: {request.param}, sparsity: 0.75}}"


def test_a_run_that_was_stopped_goes_on(recipe_file: Path, tmp_path: Path, member: str) -> None:
    out = tmp_path / "run"
    losses = run(recipe_file, out, member, KEEP_ALL)
    loaded = load_run(out)
    assert loaded.recipe.sparsity(0).type == "static"
    assert_zeros(dict(loaded.decoder.named_parameters()), loaded.masks)
    forget_newest(out)
    run(recipe_file, out, member, KEEP_ALL)
    assert losses_of(out) == losses


def test_a_wide_run_is_exported_as_any_other(recipe_file: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    out, member = tmp_path / "run", "model.iso_flop={type: wide, sparsity: 0.75}"
    run(recipe_file, out, member, "phases.0.length=4 steps")
    written = export_run(out, tmp_path / "exported")
    assert (written.d_model, written.d_ff) == (64, 128)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    assert type(model).__name__ == "GPT2LMHeadModel"
    tokens = torch.arange(12).view(1, 12)
    ours = load_run(out).decoder
    with torch.no_grad():
        expected = ours.logits(ours(tokens))
        found = model(tokens).logits
    torch.testing.assert_close(found, expected[..., : found.shape[-1]], rtol=1e-4, atol=1e-4)
