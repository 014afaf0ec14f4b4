"""Masked models exported: folding and rounding keep zeros; the configuration notes the masks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.export_folder import export_imported
from feldspar.huggingface.import_folder import import_model
from feldspar.huggingface.multipliers import WithMultipliers
from feldspar.huggingface.weights import FolderTensors
from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes
from feldspar.recipe.sections.sparsity import StaticSparsity
from feldspar.sparsity.masks import Masks
from feldspar.sparsity.saved import digest_of_masks
from tests.huggingface.conftest import BTLM, GPT2, LLAMA, MUP
from tests.rounding import assert_within_rounding, terms_of

SHAPES = {"gpt2": GPT2, "llama": LLAMA | {"n_kv_heads": 2}, "own": BTLM}


@pytest.fixture
def make_masked(make_decoder: Callable[..., Decoder]) -> Callable[[str], tuple[Decoder, Masks]]:
    """A decoder with all multipliers, half of each matrix masked."""

    def make(shape: str) -> tuple[Decoder, Masks]:
        decoder = make_decoder(SHAPES[shape], MUP)
        settings = StaticSparsity(type="static", sparsity=0.5)
        masks = Masks.draw(settings, model_shapes(decoder.settings).rows, seed=5)
        masks.apply_to_weights(decoder)
        return decoder, masks

    return make


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_zeros_survive_folding(make_masked, export, tokens, shape, dtype):
    decoder, masks = make_masked(shape)
    folder: Path = export(decoder, MUP, masks=masks, dtype=dtype)
    plain = import_model(folder)
    forward = ModelDescription(decoder.settings, MUP).forward
    unfolded = WithMultipliers(plain.state, plain.settings, plain.description.forward, forward)
    for name, mask in masks.tensors.items():
        for state in (plain.state, unfolded):
            assert not state[name][~mask].any(), name
            assert state[name][mask].all(), name
    zeros = sum(int((tensor == 0).sum()) for tensor in FolderTensors(folder).values())
    assert zeros == sum(int((~mask).sum()) for mask in masks.tensors.values())
    if dtype is torch.float32:
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.no_grad():
            expected = decoder.logits(decoder(tokens))
            assert_within_rounding(model(tokens).logits, expected, terms_of(decoder, tokens))


def test_the_configuration_says_how_they_were_drawn(make_masked, export):
    decoder, masks = make_masked("gpt2")
    noted = json.loads((export(decoder, MUP, masks=masks) / "config.json").read_text())["sparsity"]
    assert noted["sparsity"] == 0.5 and noted["seed"] == 5
    assert noted["pattern"] == "unstructured"
    assert noted["digest"] == digest_of_masks(masks)


@pytest.mark.parametrize(
    ("changes", "pattern"), [({"block": [2, 4]}, "block"), ({"pattern": "1:2"}, "1:2")]
)
def test_the_configuration_says_what_the_masks_look_like(make_decoder, export, changes, pattern):
    decoder = make_decoder(GPT2, MUP)
    settings = StaticSparsity.model_validate({"type": "static", "sparsity": 0.5} | changes)
    masks = Masks.draw(settings, model_shapes(decoder.settings).rows, seed=5)
    masks.apply_to_weights(decoder)
    folder = export(decoder, MUP, masks=masks, dtype=torch.bfloat16)
    noted = json.loads((folder / "config.json").read_text())["sparsity"]
    assert noted["pattern"] == pattern and noted.get("block", [2, 4]) == [2, 4]
    plain = import_model(folder)
    for name, mask in masks.tensors.items():
        assert torch.equal(plain.state[name] != 0, mask), name


@pytest.mark.parametrize("architecture", ["auto", "feldspar"])
def test_a_second_export_keeps_what_the_first_one_records(
    make_masked, export, tmp_path, architecture
):
    decoder, masks = make_masked("gpt2")
    first = export(decoder, MUP, masks=masks)
    export_imported(import_model(first), tmp_path / "second", architecture)
    export_imported(import_model(tmp_path / "second"), tmp_path / "third")
    noted = [
        json.loads((folder / "config.json").read_text())
        for folder in (first, tmp_path / "second", tmp_path / "third")
    ]
    for key in ("folded_from", "sparsity"):
        assert noted[0][key] is not None
        assert noted[2][key] == noted[1][key] == noted[0][key]


def test_keys_of_other_packages_are_not_taken_for_records(make_decoder, export, tmp_path):
    folder = export(make_decoder(GPT2))
    configuration = json.loads((folder / "config.json").read_text())
    del configuration["feldspar_version"]
    (tmp_path / "theirs").mkdir()
    shutil.copy(folder / "model.safetensors", tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(configuration | {"sparsity": 1}))
    export_imported(import_model(tmp_path / "theirs"), tmp_path / "out")
    assert "sparsity" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_a_dense_model_says_nothing(make_decoder, export):
    assert "sparsity" not in json.loads((export(make_decoder(GPT2)) / "config.json").read_text())
