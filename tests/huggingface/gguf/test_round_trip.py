"""GGUF files that are written here and read again: every bit of what the type can hold."""

import numpy as np
import pytest
import torch

from feldspar.huggingface.gguf.export_gguf import export_gguf
from feldspar.huggingface.gguf.gguf_file import open_gguf
from feldspar.huggingface.import_folder import import_model
from feldspar.recipe.sections.position_scaling import LinearScaling, Llama3Scaling, YarnScaling
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.huggingface.gguf.conftest import GPT2, LLAMA, described, weights
from tests.made_text import documents

BIASED = LLAMA | {"bias": True, "tied_embeddings": False}
SCALINGS = {
    "linear": LinearScaling(type="linear", factor=2.0),
    "llama3": Llama3Scaling(type="llama3", factor=8.0, train_length=32),
    "yarn": YarnScaling(type="yarn", factor=4.0, train_length=32),
}
GGML_TYPES = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16", "BF16", "F32")
STEPS = {"Q8_0": 127, "Q4_0": 7, "Q4_1": 15, "Q5_0": 15, "Q5_1": 31, "F16": 2**10, "BF16": 2**7}
"""The numbers of steps from 0, or from the least value, to the largest in a block."""


@pytest.mark.parametrize(
    ("shape", "scaling"),
    [(GPT2, None), (BIASED, None), (LLAMA | {"head_dim": 32}, "llama3")]
    + [(LLAMA, scaling) for scaling in (None, *SCALINGS)],
)
def test_a_float32_file_gives_back_every_bit(
    shape, scaling, wide_decoder, trained_tokenizer, tmp_path
):
    decoder = wide_decoder(shape)
    if scaling is not None:
        decoder.scale_positions(SCALINGS[scaling])
    state = weights(decoder)
    export_gguf(state, described(decoder), trained_tokenizer, tmp_path / "m.gguf")
    found = import_model(tmp_path / "m.gguf")
    filled = {"n_kv_heads": decoder.settings.kv_heads, "head_dim": decoder.settings.head_width}
    assert found.settings.model_copy(update=filled) == decoder.settings.model_copy(update=filled)
    assert found.scaling == decoder.position_scaling
    assert list(found.state) == list(state)
    assert all(torch.equal(found.state[name], state[name]) for name in state)
    assert found.tokenizer_folder is not None
    one, other = (TextTokenizer.load(f) for f in (trained_tokenizer, found.tokenizer_folder))
    assert one.digest == other.digest and one.end_of_document == other.end_of_document
    for text in documents(4, 100, 400, seed=3):
        assert one.encode(text) == other.encode(text)


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)]
)
def test_half_precision_stays_half_precision(dtype, kind, wide_decoder, tmp_path):
    decoder = wide_decoder(LLAMA)
    export_gguf(weights(decoder), described(decoder), None, tmp_path / "m.gguf", dtype=dtype)
    found = import_model(tmp_path / "m.gguf")
    assert found.tokenizer_folder is None
    for name, tensor in weights(decoder).items():
        wanted = tensor.to(kind) if tensor.dim() == 2 else tensor
        assert torch.equal(found.state[name], wanted), name


def test_q8_0_rounds_to_the_nearest_of_its_steps(wide_decoder, tmp_path):
    decoder = wide_decoder(LLAMA, d_model=72, n_heads=6, d_ff=96)
    export_gguf(weights(decoder), described(decoder), None, tmp_path / "m.gguf", dtype="q8_0")
    found, types = import_model(tmp_path / "m.gguf").state, open_gguf(tmp_path / "m.gguf").types
    name = "blocks.0.feed_forward.output.weight"
    assert types["blk.0.ffn_down.weight"] == "Q8_0"
    tensor = weights(decoder)[name]
    blocks = tensor.unflatten(1, (-1, 32))
    # Half a step, and the rounding of the step itself to float16.
    step = blocks.abs().amax(-1, keepdim=True) / 127
    bound = step * (0.5 + 127 * 2**-11 + 1e-3)
    assert ((found[name].unflatten(1, (-1, 32)) - blocks).abs() <= bound).all()
    # Rows of 72 are no multiple of the block, so that these matrices keep more bits.
    assert types["blk.0.ffn_up.weight"] == "F16"


@pytest.mark.parametrize("kind", GGML_TYPES)
def test_types_of_llama_cpp_are_read_near_to_what_was_written(kind, tmp_path):
    from gguf import GGMLQuantizationType, GGUFWriter, quantize

    values = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    number = GGMLQuantizationType[kind]
    data = quantize(values, number)
    writer = GGUFWriter(tmp_path / "t.gguf", "llama")
    writer.add_tensor("t", data, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = open_gguf(tmp_path / "t.gguf")
    found = file.read("t").float()
    assert file.shapes["t"] == (6, 64) and file.types["t"] == kind
    if kind == "F32":
        assert torch.equal(found, torch.from_numpy(values))
        return
    blocks = torch.from_numpy(values).unflatten(1, (-1, 32))
    span = blocks.amax(-1) - blocks.amin(-1) if kind.endswith("_1") else 2 * blocks.abs().amax(-1)
    bound = (span / STEPS[kind])[..., None].expand_as(blocks).flatten(1)
    assert ((found - torch.from_numpy(values)).abs() <= bound).all()


def test_tensors_are_read_one_at_a_time(wide_decoder, tmp_path, monkeypatch):
    decoder = wide_decoder(LLAMA)
    export_gguf(weights(decoder), described(decoder), None, tmp_path / "m.gguf")
    found = import_model(tmp_path / "m.gguf")
    assert found.file is not None
    read = []
    original = type(found.file.file).read
    monkeypatch.setattr(
        type(found.file.file), "read", lambda self, name: read.append(name) or original(self, name)
    )
    assert found.state["blocks.0.attention.output.weight"].shape == (64, 64)
    assert read == ["blk.0.attn_output.weight"]
