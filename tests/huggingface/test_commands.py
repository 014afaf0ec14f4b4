"""``feldspar export`` and ``import``: a trained run out, the folder in, and on from there."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from feldspar.model.generation import generate
from feldspar.train.load import load_run
from tests.rounding import assert_within_rounding, terms_of
from tests.train.conftest import feldspar, recipe_file, shards_folder

__all__ = ["feldspar", "recipe_file", "shards_folder"]


@pytest.mark.slow
def test_a_run_goes_out_comes_in_and_is_trained_further(feldspar, recipe_file, tmp_path):
    run, out, back = tmp_path / "run", tmp_path / "exported", tmp_path / "imported"
    trained = feldspar("train", recipe_file, "--out", run)
    assert trained.returncode == 0, trained.stderr
    exported = feldspar("export", run, "--out", out, "--json")
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["class"] == "GPT2LMHeadModel"

    decoder = load_run(run).decoder
    model = AutoModelForCausalLM.from_pretrained(out).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    prompt = torch.arange(1, 9)[None]
    with torch.no_grad():
        expected = decoder.logits(decoder(prompt))[..., : len(tokenizer)]
        assert_within_rounding(model(prompt).logits, expected, terms_of(decoder, prompt))
    theirs = model.generate(prompt, max_new_tokens=10, do_sample=False, eos_token_id=None)
    assert torch.equal(theirs, generate(decoder, prompt, 10, n_real_vocab=len(tokenizer)))

    again = feldspar("export", run, "--out", out)
    assert again.returncode == 2 and "exists already" in again.stderr
    wrong = feldspar("export", run, "--out", tmp_path / "wrong", "--architecture", "llama")
    assert wrong.returncode == 2 and "it needs model.positions: rotary" in wrong.stderr
    assert not (tmp_path / "wrong").exists()

    imported = feldspar("import", out, "--out", back)
    assert imported.returncode == 0, imported.stderr
    assert "type: huggingface" in imported.stdout and "tied_embeddings: false" in imported.stdout
    further = feldspar(
        "train",
        recipe_file,
        "--out",
        tmp_path / "further",
        "start_from.type=huggingface",
        f"start_from.path={back}",
        f"model.vocab_size={len(tokenizer)}",
        "model.tied_embeddings=false",
        "parametrization={type: sp, learning_rate: 1e-3}",
    )
    assert further.returncode == 0, further.stderr
    assert "starting from the weights" in further.stderr
