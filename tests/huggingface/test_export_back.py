"""An imported folder goes out as it came in; a folder without a tokenizer gives logits."""

import json

import pytest
import torch
from safetensors.torch import load_file

import feldspar
from feldspar.core.errors import UserError
from tests.huggingface.test_import_folder import MODELS, change_configuration, random_llama

MUP_KEYS = {
    "mup_embeddings_scale": 3.0,
    "mup_output_alpha": 2.22,
    "mup_width_scale": 0.125,
    "mup_scale_qk_dot_by_d": True,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_tensors_come_back_bit_for_bit(tmp_path, name, dtype):
    model = MODELS[name]().to(dtype)
    model.save_pretrained(tmp_path / "theirs")
    feldspar.import_model(tmp_path / "theirs", tmp_path / "ours")
    feldspar.export(tmp_path / "ours", tmp_path / "back")
    feldspar.export(tmp_path / "theirs", tmp_path / "straight")
    expected = load_file(tmp_path / "theirs" / "model.safetensors")
    for folder in ("back", "straight"):
        found = load_file(tmp_path / folder / "model.safetensors")
        assert found.keys() == expected.keys()
        for tensor in expected:
            assert found[tensor].dtype == dtype
            assert torch.equal(found[tensor], expected[tensor]), tensor
        configuration = json.loads((tmp_path / folder / "config.json").read_text())
        theirs = json.loads((tmp_path / "theirs" / "config.json").read_text())
        assert configuration["architectures"] == theirs["architectures"]
        assert configuration["dtype"] == theirs["dtype"]


def test_another_type_and_another_architecture_on_request(tmp_path):
    random_llama().save_pretrained(tmp_path / "theirs")
    feldspar.import_model(tmp_path / "theirs", tmp_path / "ours")
    feldspar.export(tmp_path / "ours", tmp_path / "out", architecture="feldspar", dtype="float16")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert "model.blocks.0.attention.output.weight" in found
    assert all(tensor.dtype == torch.float16 for tensor in found.values())
    with pytest.raises(UserError, match="gpt2 cannot express this model"):
        feldspar.export(tmp_path / "ours", tmp_path / "no", architecture="gpt2")
    with pytest.raises(UserError, match="only a run has checkpoints"):
        feldspar.export(tmp_path / "ours", tmp_path / "no", checkpoint="3")
    with pytest.raises(UserError, match="--dtype int8 is not known"):
        feldspar.export(tmp_path / "ours", tmp_path / "no", dtype="int8")
    assert not (tmp_path / "no").exists()


def test_model_json_says_all_that_logits_depend_on(tmp_path, tokens):
    scaling = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    random_llama(rope_parameters=scaling).save_pretrained(tmp_path / "theirs")
    change_configuration(tmp_path / "theirs", MUP_KEYS)
    feldspar.import_model(tmp_path / "theirs", tmp_path / "ours")
    record = json.loads((tmp_path / "ours" / "model.json").read_text())
    assert list(record) == ["model", "parametrization", "position_scaling", "source"]
    assert record["parametrization"] == {
        "type": "mup",
        "base_d_model": 2,
        "base_d_ff": 3.0,
        "learning_rate": 1e-3,
        "embedding_multiplier": 3.0,
        "output_multiplier": 2.22,
    }
    assert record["position_scaling"]["factor"] == 2.0
    assert record["source"] == {"architecture": "llama", "from": str(tmp_path / "theirs")}
    one = feldspar.open_model(tmp_path / "theirs", device="cpu").logits(tokens)
    other = feldspar.open_model(tmp_path / "ours", device="cpu").logits(tokens)
    assert torch.equal(one, other)


def test_without_a_tokenizer_there_are_logits_and_no_text(tmp_path, tokens, tokenizer_folder):
    random_llama().save_pretrained(tmp_path / "theirs")
    model = feldspar.open_model(tmp_path / "theirs", device="cpu")
    assert model.logits(tokens).shape == (2, 21, 48)
    for use in (
        lambda: model.generate("word1"),
        lambda: model.bits_per_byte("word1"),
        lambda: model.tokenizer,
        lambda: model.converse(),
    ):
        with pytest.raises(UserError, match=r"holds no tokenizer\.json: only logits"):
            use()
