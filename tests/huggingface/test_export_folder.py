"""Exported folders loaded by transformers: logits, greedy text, tokenizer, padding, refusals."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from feldspar.core.errors import UserError
from feldspar.core.progress import listening
from feldspar.huggingface.import_folder import import_model
from feldspar.model.generation import generate
from tests.huggingface.conftest import BTLM, CRYSTAL, GPT2, LLAMA, MUP
from tests.model.test_variants import VARIANTS
from tests.rounding import assert_within_rounding, terms_of
from tests.tokens.tokenizer.test_declaration import assert_same_for_transformers, whole_base
from tests.train.conftest import Listener

WINDOW = {"tokens": 4, "full_every": 2}
CASES = {
    "gpt2": (GPT2, {}, None),
    "gpt2_untied": (GPT2, {"tied_embeddings": False}, None),
    "gpt2_mup": (GPT2, {}, MUP),
    "llama": (LLAMA, {}, None),
    "llama_gqa_untied": (LLAMA, {"n_kv_heads": 2, "tied_embeddings": False}, None),
    "llama_biased_mup": (LLAMA, {"n_kv_heads": 1, "bias": True, "head_dim": 8}, MUP),
    "btlm_mup": (BTLM, {}, MUP),
    "btlm_12_heads": (BTLM, {"n_heads": 12, "d_model": 24}, None),
    "crystal_mup": (CRYSTAL, {}, MUP),
    "learned_swiglu_gqa": (GPT2, {"feed_forward": "swiglu", "n_kv_heads": 2}, None),
    "ministral": (LLAMA, {"sliding_window": {"tokens": 5}}, None),
    "ministral_gqa_mup": (LLAMA, {"n_layers": 3, "n_kv_heads": 2, "sliding_window": WINDOW}, MUP),
    "window_learned": (GPT2, {"n_layers": 3, "sliding_window": WINDOW}, None),
    "window_alibi_mup": (BTLM, {"n_layers": 3, "sliding_window": WINDOW}, MUP),
    "window_rotary_gqa": (CRYSTAL, {"n_kv_heads": 2, "sliding_window": {"tokens": 5}}, None),
    "rms_none": (GPT2, {"positions": "none", "norm": "rms", "bias": False}, None),
}
CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "ministral": "MinistralForCausalLM",
}


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_text_are_those_of_the_decoder(make_decoder, export, tokens, case):
    shape, changes, forward = CASES[case]
    decoder = make_decoder(shape, forward, **changes)
    model = load(export(decoder, forward))
    assert type(model).__name__ == CLASSES.get(case.split("_")[0], "FeldsparForCausalLM")
    with torch.no_grad():
        expected = decoder.logits(decoder(tokens))
        logits = model(tokens).logits
    assert_within_rounding(logits, expected, terms_of(decoder, tokens))
    prompt = tokens[:, :6]
    ours = generate(decoder, prompt, 15)
    for use_cache in (True, False):
        theirs = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=15,
            do_sample=False,
            use_cache=use_cache,
            pad_token_id=0,
        )
        assert torch.equal(theirs, ours)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_our_class_has_the_shapes_of_open_models(make_decoder, export, tokens, changes):
    decoder = make_decoder(GPT2 | changes)
    folder = export(decoder, architecture="feldspar")
    model = load(folder)
    with torch.no_grad():
        expected = decoder.logits(decoder(tokens))
        assert_within_rounding(model(tokens).logits, expected, terms_of(decoder, tokens))
    prompt = tokens[:, :6]
    mask = torch.ones_like(prompt)
    theirs = model.generate(prompt, attention_mask=mask, max_new_tokens=9, do_sample=False)
    assert torch.equal(theirs, generate(decoder, prompt, 9))
    back = import_model(folder)
    settings = decoder.settings
    heads = {"n_kv_heads": settings.kv_heads, "head_dim": settings.head_width}
    assert back.settings == settings.model_copy(update=heads)
    state = dict(decoder.named_parameters())
    assert all(torch.equal(back.state[name], state[name]) for name in state)


ROUNDED = {"type": "alibi", "rounded": True}


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("positions", ["learned", "alibi", ROUNDED, "rotary", "none"])
def test_our_class_ignores_padding_on_the_left(make_decoder, export, tokens, positions, window):
    decoder = make_decoder(GPT2, positions=positions, sliding_window=window)
    model = load(export(decoder, architecture="feldspar"))
    padded = torch.cat([torch.zeros(2, 5, dtype=torch.long), tokens], dim=1)
    mask = torch.cat([torch.zeros(2, 5, dtype=torch.long), torch.ones_like(tokens)], dim=1)
    with torch.no_grad():
        logits = model(padded, attention_mask=mask).logits[:, 5:]
        expected = model(tokens).logits
        text = model.generate(padded, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert_within_rounding(logits, expected, terms_of(decoder, tokens))
    assert torch.equal(text[:, 5:], generate(decoder, tokens, 8))


def test_the_cache_drops_what_left_the_window(make_decoder, export, tokens):
    model = load(export(make_decoder(GPT2, sliding_window=WINDOW)))
    with torch.no_grad():
        cache = model(tokens).past_key_values
        kept = [layer.keys.shape[2] for layer in cache.layers]
        more = model(tokens[:, :3], past_key_values=cache).logits
        whole = model(torch.cat([tokens, tokens[:, :3]], dim=1)).logits[:, -3:]
    assert kept == [WINDOW["tokens"] - 1, tokens.shape[1]]
    assert_within_rounding(more, whole, terms_of(model, tokens))


def test_our_class_gives_the_shifted_loss(make_decoder, export, tokens):
    decoder = make_decoder(BTLM)
    model = load(export(decoder))
    loss = model(tokens, labels=tokens).loss
    summed, valid = decoder.loss(tokens[:, :-1], tokens[:, 1:])
    assert_within_rounding(loss, summed / valid, terms_of(decoder, tokens))


def test_padding_rows_are_cut_and_the_tokenizer_comes_along(
    make_decoder, export, tokens, tokenizer_folder
):
    decoder = make_decoder(GPT2, MUP)
    folder = export(decoder, MUP, tokenizer_folder=tokenizer_folder)
    model, tokenizer = load(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == 46 == len(tokenizer)
    assert tokenizer.eos_token_id == 0 == model.generation_config.eos_token_id
    short = tokens.clamp_max(45)
    with torch.no_grad():
        expected = decoder.logits(decoder(short))[..., :46]
        assert_within_rounding(model(short).logits, expected, terms_of(decoder, tokens))
    record = json.loads((folder / "config.json").read_text())
    assert record["parametrization"] == "sp"
    assert record["folded_from"]["multipliers"]["embedding"] == MUP.embedding_multiplier


def test_bfloat16_weights(make_decoder, export, tokens):
    folder = export(make_decoder(GPT2), dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert next(model.parameters()).dtype == torch.bfloat16


def test_bloom_in_bfloat16_is_warned_of(make_decoder, export):
    shape = GPT2 | {"positions": {"type": "alibi"}, "embedding_norm": True, "d_ff": 64}
    listener = Listener()
    with listening(listener):
        for dtype, warnings in ((torch.float32, 0), (torch.bfloat16, 1)):
            export(make_decoder(shape), architecture="bloom", dtype=dtype, overwrite=True)
            assert len(listener.lines) == warnings
    assert "biases in bfloat16" in listener.lines[0]


def test_what_cannot_be_written_is_refused(make_decoder, export, tokenizer_folder):
    with pytest.raises(UserError, match="gpt2 cannot express this model") as caught:
        export(make_decoder(BTLM), architecture="gpt2")
    assert "positions: learned" in str(caught.value)
    with pytest.raises(UserError, match="'bert' is not supported") as caught:
        export(make_decoder(GPT2), architecture="bert")
    assert "llama" in str(caught.value)
    with pytest.raises(UserError, match="the tokenizer has 46 tokens, the model only 40"):
        export(make_decoder(GPT2, vocab_size=40), tokenizer_folder=tokenizer_folder)
    folder = export(make_decoder(GPT2))
    with pytest.raises(UserError, match="exists already"):
        export(make_decoder(GPT2))
    assert (folder / "config.json").is_file()


def test_the_declaration_of_the_base_is_exported(make_decoder, export, tmp_path):
    base = whole_base(tmp_path / "base")
    folder = export(make_decoder(LLAMA, vocab_size=800), tokenizer_folder=base)
    assert_same_for_transformers(base, folder)
    model = load(folder)
    assert model.generation_config.eos_token_id == [2, 712]
    assert model.generation_config.temperature == 0.6
    assert (model.config.bos_token_id, model.config.eos_token_id) == (1, [2, 712])
    assert model.config.pad_token_id == AutoTokenizer.from_pretrained(base).pad_token_id
