"""SmolLM2-135M from its package, against transformers' own reading of the file and llama.cpp.

``benchmarks/open_base.py`` prints the same figures on more text.
"""

import math
from collections.abc import Generator
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import feldspar
from feldspar.core.errors import UserError
from feldspar.prepare.bases import BASES, obtained
from tests.huggingface.gguf.test_llama_cpp import require_equal

BASE = "smollm2-135m"
TEXT_BYTES = 4_000
NEW_TOKENS = 12
MANUAL = list(topics.values())
LLAMA_CPP_BOUND = 2e-3
"""On log-probabilities after 30 layers; the largest difference found was 6e-4."""


@pytest.fixture(scope="module")
def file(smollm2_wheel: None) -> Generator[Path]:
    """The GGUF file of the package."""
    with obtained(BASES[BASE]) as path:
        yield path


@pytest.fixture(scope="module")
def imported(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "imported"
    feldspar.import_model(BASE, folder)
    return folder


@pytest.mark.slow
@torch.no_grad()
def test_the_base_scores_and_continues_text_as_in_transformers(file, imported):
    ours = feldspar.open_model(imported)
    source = {"gguf_file": file.name, "local_files_only": True}
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **source)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
    text = "\n".join(MANUAL)[:TEXT_BYTES]
    ids = ours.tokenizer.encode(text)
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    assert ours.tokenizer.decode(ids) == text
    end = ours.tokenizer.end_of_document_id
    framed = torch.tensor([[end, *ids, end]])
    nats = float(theirs(framed, labels=framed).loss.double()) * (framed.shape[1] - 1)
    expected = nats / math.log(2) / len(text.encode())
    assert abs(ours.bits_per_byte(text) - expected) < 1e-5
    for prompt in ("The capital of France is", "def fibonacci(n):", "In the year 1969,"):
        begin = torch.tensor([ours.tokenizer.encode(prompt)])
        found = theirs.generate(begin, max_new_tokens=NEW_TOKENS, do_sample=False)[0]
        assert ours.generate(prompt, NEW_TOKENS) == tokenizer.decode(found)


@pytest.mark.slow
def test_the_base_goes_out_as_it_came_in(file, imported, tmp_path):
    feldspar.export(imported, tmp_path / "folder")
    feldspar.export(imported, tmp_path / "file.gguf", file_format="gguf")
    weights = load_file(imported / "model.safetensors")
    for source in (tmp_path / "folder", tmp_path / "file.gguf"):
        feldspar.import_model(source, tmp_path / "again", overwrite=True)
        again = load_file(tmp_path / "again" / "model.safetensors")
        assert again.keys() == weights.keys()
        assert all(torch.equal(again[name], weights[name]) for name in weights)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / "again" / name).read_bytes() == (imported / name).read_bytes()


@pytest.mark.slow
def test_llama_cpp_continues_the_base_as_we_do(imported, tmp_path):
    feldspar.export(imported, tmp_path / "file.gguf", file_format="gguf")
    decoder = feldspar.open_model(imported).text_model.decoder
    prompts = [text.strip()[:60] for text in MANUAL[:40]]
    require_equal(decoder, imported, tmp_path / "file.gguf", LLAMA_CPP_BOUND, prompts)


@pytest.mark.slow
def test_text_that_the_base_does_not_restore_is_not_scored(imported):
    ours = feldspar.open_model(imported)
    with pytest.raises(UserError, match=r"does not restore .* bytes"):
        ours.bits_per_byte("a text with control characters: \x04\x06\x13")
