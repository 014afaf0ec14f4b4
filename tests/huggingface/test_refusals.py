"""Folders that import must refuse: one message that names the fault, and nothing written."""

import json
import pickle
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import feldspar
from feldspar.core.errors import UserError
from feldspar.huggingface import weights
from feldspar.huggingface.weights import FolderTensors
from tests.huggingface.test_import_folder import change_configuration, random_llama
from tests.processes import run

FEW = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A sound folder; tests change copies of it."""
    folder = tmp_path_factory.mktemp("llama") / "theirs"
    random_llama(num_key_value_heads=2).save_pretrained(folder)
    return folder


@pytest.fixture
def copied(llama, tmp_path):
    shutil.copytree(llama, tmp_path / "theirs")
    return tmp_path / "theirs"


def refuse(folder, message):
    """Import must raise an error with this message and write nothing."""
    before = sorted(folder.parent.iterdir())
    with pytest.raises(UserError, match=message) as caught:
        feldspar.import_model(folder, folder.parent / "out")
    assert sorted(folder.parent.iterdir()) == before
    return str(caught.value)


SHAPES = {
    "hidden_size": (8, 12, 32),
    "intermediate_size": (12, 25),
    "vocab_size": (47, 96),
    "num_attention_heads": (2, 8),
    "num_key_value_heads": (1, 4),
    "head_dim": (2, 8),
    "num_hidden_layers": (1, 3, 200),
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in SHAPES.items() for value in values]
)
def test_a_configuration_whose_shapes_lie(copied, key, value):
    """Every wrong number is found before a tensor is read, by the name of a tensor."""
    change_configuration(copied, {key: value, "head_dim": 4} | {key: value})
    refuse(copied, r"lack the tensor model\.|hold the tensor model\.|has another shape")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 18, "head_dim": None}, "is not a multiple of num_attention_heads"),
        ({"num_key_value_heads": 3}, "4 query heads are not a multiple of 3"),
        ({"num_hidden_layers": 0}, "does not describe a model"),
        ({"hidden_size": -16}, "does not describe a model"),
    ],
)
def test_impossible_shapes(copied, changes, message):
    change_configuration(copied, changes)
    refuse(copied, message)


@FEW
@given(data=st.data())
def test_any_tensor_that_is_missing_unknown_or_of_another_shape(llama, tmp_path, data):
    tensors = load_file(llama / "model.safetensors")
    name = data.draw(st.sampled_from(sorted(tensors)))
    kind = data.draw(st.sampled_from(["missing", "renamed", "longer", "integers"]))
    tensor = tensors.pop(name)
    if kind == "renamed":
        tensors[name + ".more"] = tensor
    if kind == "longer":
        tensors[name] = torch.cat([tensor, tensor[:1]])
    if kind == "integers":
        tensors[name] = tensor.long()
    folder = tmp_path / "changed" / "theirs"
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(llama, folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert name in refuse(folder, "lack the tensor|has another shape|floating-point numbers")


def test_any_shard_that_is_missing(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "LARGEST_FILE_BYTES", 3000)
    folder = tmp_path / "theirs"
    folder.mkdir()
    shutil.copyfile(llama / "config.json", folder / "config.json")
    weights.write_weights(folder, FolderTensors(llama))
    shards = sorted(folder.glob("model-*"))
    assert len(shards) > 2
    for shard in shards:
        shard.rename(tmp_path / "aside")
        refuse(folder, f"{shard.name} is missing, though the index names it")
        (tmp_path / "aside").rename(shard)
    feldspar.import_model(folder, tmp_path / "ours")


KNOWN = ("default", "linear", "dynamic", "yarn", "llama3")


@FEW
@given(kind=st.text(min_size=1, max_size=12).filter(lambda kind: kind not in KNOWN))
def test_any_rotary_type_that_is_not_known(llama, tmp_path, kind):
    folder = tmp_path / "changed" / "theirs"
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(llama, folder)
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    change_configuration(folder, {"rope_parameters": rope})
    refuse(folder, "rope_type is not supported with this value")


def test_code_that_a_folder_brings_is_never_run(copied):
    changes = {"model_type": "mystery", "auto_map": {"AutoModelForCausalLM": "modeling.Mystery"}}
    change_configuration(copied, changes)
    (copied / "modeling.py").write_text("raise SystemExit('this code ran')")
    refuse(copied, r"'mystery' is not supported, and the code that the folder brings \(auto_map\)")


def pickled(folder, shards=1):
    """Replace the weights of a folder by pickles."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for number in range(shards):
        part = {name: tensors[name] for name in names[number::shards]}
        suffix = "" if shards == 1 else f"-{number + 1:05d}-of-{shards:05d}"
        torch.save(part, folder / f"pytorch_model{suffix}.bin")
    return tensors


@pytest.mark.parametrize("shards", [1, 3])
def test_pickled_weights_are_refused_and_converted_on_request(copied, tmp_path, shards):
    expected = pickled(copied, shards)
    assert "--convert-pickles" in refuse(copied, "holds pickled weights only")
    feldspar.import_model(copied, tmp_path / "ours", convert_pickles=True)
    feldspar.export(tmp_path / "ours", tmp_path / "back")
    found = load_file(tmp_path / "back" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    record = json.loads((tmp_path / "ours" / "model.json").read_text())
    assert record["source"]["from"] == str(copied)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "ours", "theirs"]


class Harm:
    """An object whose unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("saved", ["torch", "pickle"])
def test_a_pickle_with_code_is_never_run(copied, tmp_path, saved):
    (copied / "model.safetensors").unlink()
    content = {"model.norm.weight": torch.ones(16), "harm": Harm(tmp_path / "harm")}
    if saved == "torch":
        torch.save(content, copied / "pytorch_model.bin")
    else:
        (copied / "pytorch_model.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="the pickled weights cannot be converted") as caught:
        feldspar.import_model(copied, tmp_path / "ours", convert_pickles=True)
    assert "pytorch_model.bin holds more than tensors" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs"]


@pytest.mark.slow
def test_the_command_says_it_in_one_message(copied, tmp_path):
    pickled(copied)
    refused = run(["feldspar", "import", copied, "--out", tmp_path / "ours"])
    assert refused.returncode == 2 and "--convert-pickles" in refused.stderr
    assert "Traceback" not in refused.stderr and not (tmp_path / "ours").exists()
    converted = ["feldspar", "import", copied, "--out", tmp_path / "ours", "--convert-pickles"]
    assert run(converted).returncode == 0
