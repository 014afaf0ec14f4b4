"""GGUF files that are damaged, lie or hold what we do not compute: one message each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feldspar.core.errors import UserError
from feldspar.huggingface.gguf.export_gguf import export_gguf
from feldspar.huggingface.gguf.gguf_file import open_gguf
from feldspar.huggingface.gguf.written_gguf import require_writable_gguf
from feldspar.huggingface.import_folder import import_model
from tests.huggingface.gguf.conftest import GPT2, LLAMA, described, weights

Changed = Callable[..., Path]


@pytest.fixture
def written(wide_decoder, trained_tokenizer, tmp_path) -> Path:
    """A small Llama as a GGUF file."""
    decoder = wide_decoder(LLAMA)
    path = tmp_path / "whole.gguf"
    export_gguf(weights(decoder), described(decoder), trained_tokenizer, path)
    return path


@pytest.fixture
def changed(written: Path, tmp_path: Path) -> Changed:
    """The file with other keys or tensors; None takes one away."""
    from gguf import GGUFWriter

    def make(keys: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> Path:
        file = open_gguf(written)
        metadata = {**file.metadata, **(keys or {})}
        path = tmp_path / "changed.gguf"
        writer = GGUFWriter(path, metadata.pop("general.architecture"))
        for key, value in metadata.items():
            if key.startswith("GGUF.") or value is None:
                continue
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
            add |= {str: writer.add_string, list: writer.add_array}
            add[type(value)](key, value)
        stored = {name: file.read(name).numpy() for name in file.shapes} | (tensors or {})
        for name, tensor in stored.items():
            if tensor is not None:
                writer.add_tensor(name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


def test_a_changed_file_without_changes_is_read(changed):
    assert import_model(changed()).settings.n_layers == 2


@pytest.mark.parametrize(
    ("keys", "tensors", "message"),
    [
        ({"general.architecture": "mamba"}, {}, "the architecture 'mamba' is not supported"),
        ({"llama.block_count": None}, {}, "lacks the key llama.block_count"),
        ({"llama.block_count": 3}, {}, "lack the tensor model.layers.2"),
        ({"llama.block_count": 0}, {}, "does not describe a model"),
        ({"llama.embedding_length": 0}, {}, "not a whole number above 0"),
        ({"llama.embedding_length": 128}, {}, "another shape"),
        ({"llama.attention.head_count": 3}, {}, "not a multiple of num_attention_heads"),
        ({"llama.expert_count": 8}, {}, "llama.expert_count is not supported"),
        ({"llama.attention.scale": 0.5}, {}, "llama.attention.scale is not supported"),
        ({"llama.rope.scaling.type": "longrope"}, {}, "rope.scaling.type is not supported"),
        ({"llama.rope.dimension_count": 8}, {}, "rope.dimension_count is not supported"),
        ({"split.count": 2}, {}, "is one part of 2"),
        ({"tokenizer.ggml.model": "plamo2"}, {}, "this kind of tokenizer is not known"),
        ({"tokenizer.ggml.pre": "grok-2"}, {}, "this pre-tokenizer is not known"),
        ({"tokenizer.ggml.pre": None}, {}, "this pre-tokenizer is not known"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, {}, "one kind for each token|a token twice"),
        ({"tokenizer.ggml.merges": ["abc"]}, {}, "does not join two tokens"),
        ({"tokenizer.ggml.merges": ["nowhere none"]}, {}, "contradict each other"),
        ({"tokenizer.ggml.eos_token_id": 9999}, {}, "eos_token_id is no token"),
        ({}, {"blk.0.mystery.weight": np.ones(4, np.float32)}, "blk.0.mystery.weight"),
        ({}, {"blk.1.ffn_up.weight": None}, "lack the tensor model.layers.1.mlp.up_proj.weight"),
        ({}, {"token_embd.weight": None}, "lacks the tensor token_embd.weight"),
        ({}, {"output_norm.weight": np.ones(63, np.float32)}, "another shape"),
        ({}, {"rope_freqs.weight": np.full(8, 3, np.float32)}, "not those of Llama 3"),
        ({}, {"output_norm.weight": np.ones(64, np.int32)}, "quantised in a way|floating-point"),
    ],
)
def test_what_we_do_not_compute_is_refused_by_name(keys, tensors, message, changed):
    with pytest.raises(UserError, match=message):
        import_model(changed(keys, tensors))


def test_numbers_that_are_not_finite_are_refused(changed):
    damaged = np.full(64, np.nan, np.float32)
    model = import_model(changed({}, {"output_norm.weight": damaged}))
    with pytest.raises(UserError, match=r"model\.norm\.weight.* not finite"):
        model.state["final_norm.weight"]


def test_a_shortened_file_is_refused_wherever_it_ends(written, tmp_path):
    data = written.read_bytes()
    short = tmp_path / "short.gguf"
    for length in (*range(0, 400, 7), *range(400, len(data), len(data) // 60), len(data) - 1):
        short.write_bytes(data[:length])
        with pytest.raises(UserError, match="damaged, shortened, or not a GGUF file"):
            open_gguf(short)


@pytest.mark.parametrize("count", [2**20, 2**40, 2**63])
def test_counts_that_lie_are_refused_at_once(count, written, tmp_path):
    data = bytearray(written.read_bytes())
    data[8:16] = count.to_bytes(8, "little")
    path = tmp_path / "lie.gguf"
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged, shortened, or not a GGUF file"):
        open_gguf(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x40" + bytes(200))
    with pytest.raises(UserError, match="not a GGUF file"):
        import_model(path)


def test_models_and_tokenizers_that_llama_cpp_lacks_are_not_exported(
    wide_decoder, trained_tokenizer, tmp_path
):
    decoder = wide_decoder(LLAMA, positions="alibi", n_kv_heads=4)
    with pytest.raises(UserError, match="has no class that can express this model"):
        export_gguf(weights(decoder), described(decoder), None, tmp_path / "m.gguf")
    other = tmp_path / "tokenizer"
    other.mkdir()
    text = (trained_tokenizer / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(
        text.replace('"normalizer": null', '"normalizer": {"type": "Lowercase"}')
    )
    (other / "tokenizer_config.json").write_text(
        (trained_tokenizer / "tokenizer_config.json").read_text()
    )
    plain = wide_decoder(GPT2)
    with pytest.raises(UserError, match=r"a rule that llama\.cpp does not have"):
        export_gguf(weights(plain), described(plain), other, tmp_path / "m.gguf")
    assert not list(tmp_path.glob("m.gguf*"))


def test_only_gguf_files_are_replaced(written, tmp_path):
    with pytest.raises(UserError, match="exists already"):
        require_writable_gguf(written, overwrite=False)
    require_writable_gguf(written, overwrite=True)
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path / "notes.txt", tmp_path):
        with pytest.raises(UserError, match="is not a GGUF file"):
            require_writable_gguf(path, overwrite=True)
