"""Extending a model's context: the formula, what the folder keeps, and what is refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
)
from transformers.models.bloom import modeling_bloom

import feldspar
from feldspar.core.errors import UserError
from feldspar.recipe.sections.position_scaling import LinearScaling, NoScaling, YarnScaling
from tests.rounding import assert_within_rounding, terms_of

SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}
TOKENS = torch.randint(48, (2, 30), generator=torch.Generator().manual_seed(1))


def random_model(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "bloom":
        shape = {"vocab_size": 48, "hidden_size": 24, "n_layer": 2, "n_head": 12}
        return BloomForCausalLM(BloomConfig(**shape, **SPECIAL))
    if kind == "mpt":
        shape = {"vocab_size": 48, "d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 16}
        return MptForCausalLM(MptConfig(**shape, **SPECIAL))
    if kind == "gpt2":
        shape = {"vocab_size": 48, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
        return GPT2LMHeadModel(GPT2Config(**shape, **SPECIAL))
    shape = {"vocab_size": 48, "hidden_size": 16, "intermediate_size": 24}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 16}
    return LlamaForCausalLM(LlamaConfig(**shape, **heads, **SPECIAL))


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    model = random_model(request.param)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10).add_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(tmp_path / "given")
    return tmp_path / "given"


def logits_in_transformers(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.mark.parametrize("folder", ["bloom"], indirect=True)
def test_slopes_of_bloom_are_divided(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class of transformers with its slopes divided is the reference."""
    given = feldspar.open_model(folder, device="cpu")
    before = given.logits(TOKENS)
    extended = feldspar.extend_context(given, factor=2.5, to=tmp_path / "longer")
    slopes = modeling_bloom._get_alibi_slopes
    monkeypatch.setattr(
        modeling_bloom, "_get_alibi_slopes", lambda *given, **named: slopes(*given, **named) / 2.5
    )
    expected = logits_in_transformers(folder)
    terms = terms_of(extended.decoder, TOKENS)
    assert_within_rounding(extended.logits(TOKENS), expected, terms)
    assert torch.equal(given.logits(TOKENS), before)
    assert (before - expected).abs().max() > 1e-3
    written = feldspar.open_model(tmp_path / "longer", device="cpu")
    assert torch.equal(written.logits(TOKENS), extended.logits(TOKENS))
    assert written.decoder.settings.max_sequence_length == 2.5 * 2048
    feldspar.export(tmp_path / "longer", tmp_path / "exported")
    assert_within_rounding(logits_in_transformers(tmp_path / "exported"), expected, terms)
    with pytest.raises(UserError, match="the architecture bloom cannot express this model"):
        feldspar.export(tmp_path / "longer", tmp_path / "refused", architecture="bloom")


@pytest.mark.parametrize("folder", ["mpt"], indirect=True)
def test_the_limit_of_mpt_is_raised_alone(folder: Path, tmp_path: Path) -> None:
    feldspar.extend_context(folder, length=32, to=tmp_path / "longer")
    feldspar.export(tmp_path / "longer", tmp_path / "exported")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    assert isinstance(model, MptForCausalLM) and model.config.max_seq_len == 32
    given = feldspar.open_model(folder, device="cpu")
    terms = terms_of(given.decoder, TOKENS)
    with torch.no_grad():
        assert_within_rounding(model(TOKENS).logits, given.logits(TOKENS), terms)


@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_rotary_positions_stay_in_their_class(folder: Path, tmp_path: Path) -> None:
    for kind in ("linear", "yarn", "llama3"):
        longer, exported = tmp_path / kind, tmp_path / f"{kind}-exported"
        extended = feldspar.extend_context(folder, factor=2, kind=kind, to=longer)
        feldspar.export(longer, exported)
        model = AutoModelForCausalLM.from_pretrained(exported).eval()
        assert isinstance(model, LlamaForCausalLM)
        assert model.config.max_position_embeddings == 32
        terms = terms_of(extended.decoder, TOKENS)
        with torch.no_grad():
            assert_within_rounding(model(TOKENS).logits, extended.logits(TOKENS), terms)


@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_factors_multiply_and_defaults_are_the_models(folder: Path) -> None:
    model = feldspar.open_model(folder, device="cpu")
    twice = feldspar.extend_context(feldspar.extend_context(model, factor=2), factor=3)
    assert twice.decoder.position_scaling == LinearScaling(type="linear", factor=6)
    assert twice.decoder.settings.max_sequence_length == 96
    growing = feldspar.extend_context(model, train_length=16, length=64)
    assert growing.decoder.position_scaling == LinearScaling(type="linear", train_length=16)
    assert torch.equal(growing.logits(TOKENS[:, :16]), model.logits(TOKENS[:, :16]))
    yarn = feldspar.extend_context(model, factor=4, kind="yarn")
    expected = YarnScaling(type="yarn", factor=4, train_length=16)
    assert yarn.decoder.position_scaling == expected
    with pytest.raises(UserError, match="scaled already"):
        feldspar.extend_context(yarn, factor=2)
    assert model.decoder.position_scaling == NoScaling()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "give either factor or train_length"),
        ({"factor": 2, "train_length": 16}, "give either factor or train_length"),
        ({"factor": 0.5}, "write 2, not 0.5"),
        ({"factor": 0}, "must be 1"),
        ({"factor": -2}, "must be 1"),
        ({"factor": math.nan}, "finite number"),
        ({"factor": "far"}, "valid number"),
        ({"train_length": 1}, "greater than 1"),
        ({"factor": 2, "kind": "longrope"}, "'longrope'"),
        ({"factor": 2, "length": 8}, "length must be"),
        ({"length": 0}, "length must be"),
        ({"factor": 2, "kind": "yarn"}, "the model has alibi"),
    ],
)
@pytest.mark.parametrize("folder", ["mpt"], indirect=True)
def test_bad_values_are_refused(folder: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        feldspar.extend_context(folder, **keys)


@pytest.mark.parametrize("folder", ["gpt2"], indirect=True)
def test_a_table_of_positions_is_stretched(folder: Path, tmp_path: Path) -> None:
    """The class of transformers with a table by numpy's interpolation is the reference."""
    given = feldspar.open_model(folder, device="cpu")
    short = TOKENS[:, :16]
    before = given.logits(short)
    extended = feldspar.extend_context(given, factor=2.5, to=tmp_path / "longer")
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    table = model.transformer.wpe.weight.detach().double().numpy()
    places = np.arange(40) / 2.5
    columns = [np.interp(places, np.arange(16), column) for column in table.T]
    model.transformer.wpe = nn.Embedding.from_pretrained(torch.tensor(np.stack(columns, 1)).float())
    with torch.no_grad():
        expected = model(TOKENS).logits
    terms = terms_of(extended.decoder, TOKENS)
    assert_within_rounding(extended.logits(TOKENS), expected, terms)
    assert torch.equal(given.logits(short), before)
    written = feldspar.open_model(tmp_path / "longer", device="cpu")
    assert torch.equal(written.logits(TOKENS), extended.logits(TOKENS))
    feldspar.export(tmp_path / "longer", tmp_path / "exported")
    assert GPT2Config.from_pretrained(tmp_path / "exported").n_positions == 40
    assert_within_rounding(logits_in_transformers(tmp_path / "exported"), expected, terms)
    for keys in ({"train_length": 16, "length": 40}, {"length": 40}, {"factor": 2, "kind": "ntk"}):
        with pytest.raises(UserError, match="table of learned positions"):
            feldspar.extend_context(given, **keys)
