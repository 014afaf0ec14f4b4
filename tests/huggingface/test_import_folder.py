"""Folders of transformers' own classes read as decoders; refusals of what we would get wrong."""

import json
import shutil

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MinistralConfig,
    MinistralForCausalLM,
)

from feldspar.core.errors import RunError, UserError
from feldspar.huggingface import import_folder, weights
from feldspar.huggingface.import_folder import import_model, write_imported
from feldspar.parametrization.application import set_forward_multipliers
from feldspar.parametrization.tables import ForwardMultipliers
from tests.huggingface.conftest import BTLM, CRYSTAL, GPT2, LLAMA
from tests.rounding import assert_within_rounding, terms_of

SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}


def random_gpt2(**changes):
    torch.manual_seed(0)
    shape = {"vocab_size": 48, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 4}
    return disturbed(GPT2LMHeadModel(GPT2Config(**(shape | SPECIAL | changes))))


LLAMA_SHAPE = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def random_llama(**changes):
    torch.manual_seed(0)
    return disturbed(LlamaForCausalLM(LlamaConfig(**(LLAMA_SHAPE | SPECIAL | changes))))


def random_ministral(**changes):
    torch.manual_seed(0)
    shape = LLAMA_SHAPE | {"num_key_value_heads": 2, "head_dim": 4, "sliding_window": 6}
    return disturbed(MinistralForCausalLM(MinistralConfig(**(shape | SPECIAL | changes))))


def disturbed(model):
    """Random biases and gains too, so that a lost one shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


MODELS = {
    "gpt2": lambda: random_gpt2(),
    "gpt2_untied_inner": lambda: random_gpt2(n_inner=40, tie_word_embeddings=False),
    "llama": lambda: random_llama(),
    "llama_gqa_tied": lambda: random_llama(num_key_value_heads=2, tie_word_embeddings=True),
    "llama_base": lambda: random_llama(
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, head_dim=8
    ),
    "llama_attention_bias": lambda: random_llama(attention_bias=True),
    "llama_mlp_bias": lambda: random_llama(mlp_bias=True),
    "ministral": lambda: random_ministral(),
    "ministral_mixed": lambda: random_ministral(
        layer_types=["sliding_attention", "full_attention"], head_dim=8
    ),
    "llama_both_biases": lambda: random_llama(attention_bias=True, mlp_bias=True),
}


def logits_of(imported, tokens):
    decoder = imported.decoder().eval()
    with torch.no_grad():
        return decoder.logits(decoder(tokens))


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(tmp_path, tokens, name):
    model = MODELS[name]()
    model.save_pretrained(tmp_path / "theirs")
    imported = import_model(tmp_path / "theirs")
    with torch.no_grad():
        expected = model(tokens).logits
    assert_within_rounding(logits_of(imported, tokens), expected, terms_of(model, tokens))
    assert imported.description.parametrization.type == "sp"
    assert imported.tokenizer_folder is None


WINDOWED = BTLM | {"sliding_window": {"tokens": 8, "full_every": 2}}
MINISTRAL = LLAMA | {"sliding_window": {"tokens": 8}}


@pytest.mark.parametrize(
    "shape",
    [GPT2, BTLM, CRYSTAL, WINDOWED, MINISTRAL],
    ids=["gpt2", "btlm", "crystal", "windowed", "ministral"],
)
@pytest.mark.parametrize("architecture", ["auto", "feldspar"])
def test_our_own_export_comes_back_unchanged(make_decoder, export, shape, architecture):
    decoder = make_decoder(shape)
    imported = import_model(export(decoder, architecture=architecture))
    assert (
        imported.settings.model_copy(update={"n_kv_heads": None, "head_dim": None})
        == decoder.settings
    )
    state = decoder.state_dict()
    assert list(imported.state) == list(state)
    assert all(torch.equal(imported.state[name], state[name]) for name in state)


def test_weights_without_the_outer_prefix_and_with_mask_buffers(tmp_path, tokens):
    """How the published GPT-2 folders look."""
    model = random_gpt2()
    model.save_pretrained(tmp_path / "theirs")
    state = {
        name.removeprefix("transformer."): tensor
        for name, tensor in weights.FolderTensors(tmp_path / "theirs").items()
    }
    state["h.0.attn.bias"] = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    weights.write_weights(tmp_path / "theirs", state)
    with torch.no_grad():
        expected = model(tokens).logits
    found = logits_of(import_model(tmp_path / "theirs"), tokens)
    assert_within_rounding(found, expected, terms_of(model, tokens))


def test_an_imported_model_is_written_and_read_again(tmp_path, tokens, tokenizer_folder):
    model = random_gpt2()
    model.save_pretrained(tmp_path / "theirs")
    shutil.copytree(tokenizer_folder, tmp_path / "theirs", dirs_exist_ok=True)
    imported = import_model(tmp_path / "theirs")
    write_imported(imported, tmp_path / "ours")
    again = import_model(tmp_path / "ours")
    assert again.settings == imported.settings
    assert again.tokenizer_folder == tmp_path / "ours"
    assert all(torch.equal(again.state[name], imported.state[name]) for name in imported.state)


def test_several_files_with_an_index(tmp_path, monkeypatch, tokens):
    monkeypatch.setattr(weights, "LARGEST_FILE_BYTES", 3000)
    model = random_gpt2()
    model.save_pretrained(tmp_path / "theirs")
    imported = import_model(tmp_path / "theirs")
    write_imported(imported, tmp_path / "ours")
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 2
    again = import_model(tmp_path / "ours")
    assert torch.equal(logits_of(again, tokens), logits_of(imported, tokens))
    (tmp_path / "ours" / "manifest.json").unlink()
    next((tmp_path / "ours").glob("model-00002*")).unlink()
    with pytest.raises(UserError, match="is missing, though the index names it"):
        import_model(tmp_path / "ours")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "bert"}, "'bert' is not supported"),
        ({"activation_function": "silu"}, "activation_function is not supported"),
        ({"n_layer": 3}, r"the weights lack the tensor transformer\.h\.2"),
        ({"n_layer": 1}, r"the weights hold the tensor transformer\.h\.1"),
        ({"n_embd": 32}, "another shape than the configuration says"),
        ({"n_layer": "two"}, "does not describe a model that we know"),
    ],
)
def test_what_we_would_compute_differently_is_refused(tmp_path, changes, message):
    random_gpt2().save_pretrained(tmp_path)
    change_configuration(tmp_path, changes)
    with pytest.raises(UserError, match=message):
        import_model(tmp_path)


MUP_KEYS = {
    "mup_embeddings_scale": 3.0,
    "mup_output_alpha": 2.22,
    "mup_width_scale": 0.1,
    "mup_scale_qk_dot_by_d": True,
}


def change_configuration(folder, changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_declared_multipliers_are_kept(tmp_path, tokens):
    random_gpt2().save_pretrained(tmp_path)
    plain = import_model(tmp_path)
    change_configuration(tmp_path, MUP_KEYS)
    imported = import_model(tmp_path)
    assert imported.settings == plain.settings
    assert all(torch.equal(imported.state[name], plain.state[name]) for name in plain.state)
    parametrization = imported.description.parametrization
    assert parametrization.type == "mup" and parametrization.base_d_model == 2
    decoder = plain.decoder().eval()
    set_forward_multipliers(decoder, ForwardMultipliers(3.0, 1.0, 1 / 4, 0.222))
    with torch.no_grad():
        expected = decoder.logits(decoder(tokens))
    assert_within_rounding(logits_of(imported, tokens), expected, terms_of(decoder, tokens))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"parametrization": "mup"}, "mup_embeddings_scale is missing, but the model"),
        ({"mup_width_scale": 0.1}, "mup_embeddings_scale is missing, but the model"),
        (MUP_KEYS | {"mup_width_scale": None}, "mup_width_scale is missing, but the model"),
        (MUP_KEYS | {"mup_output_alpha": 0}, "config.json: mup_output_alpha"),
        (MUP_KEYS | {"mup_output_alpha": "2"}, "config.json: mup_output_alpha"),
        (MUP_KEYS | {"mup_scale_qk_dot_by_d": 1}, "config.json: mup_scale_qk_dot_by_d"),
    ],
)
def test_a_mup_model_without_its_multipliers_is_refused(tmp_path, changes, message):
    random_gpt2().save_pretrained(tmp_path)
    change_configuration(tmp_path, changes)
    with pytest.raises(UserError, match=message):
        import_model(tmp_path)


def test_folders_that_hold_no_safe_weights(tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        import_model(tmp_path / "absent")
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        import_model(tmp_path)
    random_gpt2().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights only"):
        import_model(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        import_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(RunError, match="is damaged"):
        import_model(tmp_path)
    (tmp_path / import_folder.SETTINGS_NAME).write_text("{}")
    with pytest.raises(UserError, match=r"model\.json lacks 'model'"):
        import_model(tmp_path)
    (tmp_path / import_folder.SETTINGS_NAME).write_text('{"n_layers": 2, "d_model": 16}')
    with pytest.raises(UserError, match="the form of an earlier version") as caught:
        import_model(tmp_path)
    assert "import the model again" in str(caught.value)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path):
    random_gpt2().save_pretrained(tmp_path)
    index = {"weight_map": {"wte.weight": "../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="outside its folder"):
        import_model(tmp_path)


@pytest.mark.parametrize("places", [None, [], {"a": 3}, {"a": None}, "x"])
def test_an_index_of_the_wrong_type_is_refused(tmp_path, places):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError, match="weight_map does not name a file"):
        weights.FolderTensors(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = random_gpt2()
    with torch.no_grad():
        model.transformer.wte.weight[3, 2] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"wte\.weight holds numbers that are not"):
        write_imported(import_model(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": []},
        {"model_type": {"a": 1}},
        {"rope_parameters": "words"},
        {"rope_parameters": [1]},
        {"num_hidden_layers": 10**18},
        {"hidden_size": "words"},
        {"rms_norm_eps": [1]},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 3},
    ],
)
def test_values_of_wrong_types_are_refused_by_file(tmp_path, changes):
    random_llama().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError) as caught:
        import_model(tmp_path)
    assert "config.json" in str(caught.value)
    assert "validation error" not in str(caught.value)


def test_a_head_beside_a_tied_embedding_must_be_its_copy(tmp_path):
    model = random_llama()
    model.save_pretrained(tmp_path)
    change_configuration(tmp_path, {"tie_word_embeddings": True})
    with pytest.raises(UserError, match="tie_word_embeddings is true, but lm_head"):
        import_model(tmp_path)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
    model.save_pretrained(tmp_path)
    change_configuration(tmp_path, {"tie_word_embeddings": True})
    assert import_model(tmp_path).settings.tied_embeddings


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("tokenizer.json", '{"a', "is not a tokenizer"),
        (
            "chat_template.jinja",
            "{% for m in messages %}{{ m",
            "the chat template cannot be parsed",
        ),
    ],
)
def test_an_unreadable_tokenizer_is_refused_before_anything_is_written(
    tmp_path, tokenizer_folder, name, text, message
):
    random_gpt2().save_pretrained(tmp_path / "theirs")
    shutil.copytree(tokenizer_folder, tmp_path / "theirs", dirs_exist_ok=True)
    (tmp_path / "theirs" / name).write_text(text)
    with pytest.raises(UserError, match=message):
        write_imported(import_model(tmp_path / "theirs"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
