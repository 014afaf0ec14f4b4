"""Scaled positions out and in: transformers gives the same logits, an import the same scaling."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from feldspar.core.errors import UserError
from feldspar.evaluate.exported import open_exported
from feldspar.huggingface.import_folder import import_model, read_description, write_imported
from feldspar.model.generation import generate
from feldspar.recipe.sections.position_scaling import NoScaling
from tests.huggingface.conftest import BTLM, CRYSTAL, LLAMA
from tests.model.test_position_scaling import scaling
from tests.rounding import assert_within_rounding, terms_of

LINEAR = scaling("linear", factor=2)
GROWING = scaling("linear", train_length=8)
CASES = {
    "llama linear": (LLAMA, {}, LINEAR),
    "llama yarn": (LLAMA, {}, scaling("yarn", factor=4, train_length=8)),
    "llama llama3": (LLAMA, {}, scaling("llama3", factor=8, train_length=8)),
    "own ntk": (LLAMA, {"d_model": 32}, scaling("ntk", factor=3)),
    "own growing ntk": (LLAMA, {"d_model": 32}, scaling("ntk", factor=3, train_length=8)),
    "own rotary growing": (CRYSTAL, {"d_model": 32}, GROWING),
    "own rotary yarn": (CRYSTAL, {"d_model": 32}, scaling("yarn", factor=4, train_length=8)),
    "own rotary llama3": (CRYSTAL, {"d_model": 32}, scaling("llama3", factor=8, train_length=8)),
    "own alibi": (BTLM, {}, LINEAR),
    "own alibi ntk of 12": (BTLM, {"n_heads": 12}, scaling("ntk", factor=3)),
    "own alibi query": (BTLM, {}, scaling("linear", train_length=8, scope="query")),
    "own alibi growing": (BTLM, {}, GROWING),
}


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("case", CASES)
def test_logits_greedy_text_and_the_scaling_itself(make_decoder, export, tokens, case):
    """Oracle B10; a scaling that grows is told the length ahead, as `generate` does."""
    shape, changes, chosen = CASES[case]
    decoder = make_decoder(shape, **changes)
    decoder.scale_positions(chosen)
    folder = export(decoder, scaling=chosen)
    assert import_model(folder).scaling == chosen == read_description(folder).scaling
    model = load(folder)
    assert type(model).__name__.startswith("Llama" if case.startswith("llama") else "Feldspar")
    with torch.no_grad():
        expected = decoder.logits(decoder(tokens))
        assert_within_rounding(model(tokens).logits, expected, terms_of(decoder, tokens))
        decoder.scale_positions(NoScaling())
        assert (decoder.logits(decoder(tokens)) - expected).abs().max() > 1e-2
    decoder.scale_positions(chosen)
    prompt = tokens[:, :6]
    model.config.scaled_length = 18
    theirs = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False
    )
    assert torch.equal(theirs, generate(decoder, prompt, 12))


@pytest.mark.parametrize("chosen", [GROWING, scaling("linear", train_length=8, scope="query")])
def test_rows_padded_on_the_left_scale_by_their_own_length(make_decoder, export, tokens, chosen):
    decoder = make_decoder(BTLM)
    decoder.scale_positions(chosen)
    model = load(export(decoder, scaling=chosen))
    padded, mask = tokens.clone(), torch.ones_like(tokens)
    padded[1, :9], mask[1, :9] = 0, 0
    with torch.no_grad():
        logits = model(padded, attention_mask=mask).logits
        for row, begin in ((0, 0), (1, 9)):
            alone = decoder.logits(decoder(tokens[row : row + 1, begin:]))[0]
            assert_within_rounding(logits[row, begin:], alone, terms_of(decoder, tokens))


def test_a_cache_that_would_drift_is_refused_with_its_remedies(make_decoder, export, tokens):
    decoder = make_decoder(BTLM)
    model = load(export(decoder, scaling=GROWING))
    prompt = tokens[:, :6]
    arguments = {"attention_mask": torch.ones_like(prompt), "do_sample": False}
    with pytest.raises(ValueError, match=r"set config\.scaled_length to prompt"):
        model.generate(prompt, max_new_tokens=5, **arguments)
    assert model.generate(prompt, max_new_tokens=2, **arguments).shape == (2, 8)
    model.generate(prompt, max_new_tokens=5, use_cache=False, **arguments)


def test_a_model_of_transformers_is_read_with_its_scaling(tmp_path, tokens, tokenizer_folder):
    torch.manual_seed(0)
    parameters = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    }
    config = LlamaConfig(
        vocab_size=46,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        rope_parameters=parameters,
    )
    theirs = LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tokenizer_folder)
    model = import_model(tokenizer_folder)
    write_imported(model, tmp_path / "imported")
    ours = open_exported(tmp_path / "imported").decoder
    assert ours.position_scaling == scaling("llama3", factor=8, train_length=8)
    short = tokens.clamp_max(45)
    with torch.no_grad():
        found, expected = ours.logits(ours(short)), theirs(short).logits
    assert_within_rounding(found, expected, terms_of(ours, tokens))


def test_scalings_that_we_would_compute_differently_are_refused(make_decoder, export):
    decoder = make_decoder(LLAMA)
    folder = export(decoder)
    (folder / "manifest.json").unlink()
    record = json.loads((folder / "config.json").read_text())
    for changed, message in (
        ({"rope_type": "longrope", "factor": 2.0}, "rope_type is not supported"),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": False}, "truncate is not supported"),
    ):
        (folder / "config.json").write_text(json.dumps(record | {"rope_parameters": changed}))
        with pytest.raises(UserError, match=message):
            import_model(folder)
    with pytest.raises(UserError, match="llama cannot express this model") as caught:
        export(decoder, architecture="llama", scaling=GROWING, overwrite=True)
    assert "position_scaling: none" in str(caught.value)
