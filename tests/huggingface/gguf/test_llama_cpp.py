"""Exported models, run by llama.cpp itself: the same tokens and log-probabilities as ours."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from feldspar.huggingface.architectures import of_configuration
from feldspar.huggingface.gguf.export_gguf import export_gguf
from feldspar.huggingface.gguf.gguf_file import open_gguf
from feldspar.huggingface.import_folder import import_model
from feldspar.model.decoder import Decoder
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.position_scaling import LinearScaling, Llama3Scaling, YarnScaling
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.huggingface.gguf.architectures import CONFIGURATIONS, EXPECTED_NAMES, GELU
from tests.huggingface.gguf.conftest import GPT2, LLAMA, described, weights
from tests.huggingface.gguf.llama_cpp import LlamaCpp
from tests.made_text import documents

NEW_TOKENS = 8
N_PROMPTS = 20
CANDIDATES = [text[: 30 + place] for place, text in enumerate(documents(60, 200, seed=7))]
EXACT = 2e-5
"""Bound on the difference of log-probabilities in float32; the largest found was 2e-6."""
TABLED = 1e-2
"""The same where llama.cpp reads GELU from a table of float16 (ggml's ``ggml_table_gelu_f16``); the
largest found was 3e-3."""
BIASED = LLAMA | {"bias": True, "tied_embeddings": False}


@pytest.mark.parametrize(
    ("shape", "scaling", "bound"),
    [
        (LLAMA, None, EXACT),
        (LLAMA | {"tied_embeddings": False, "n_kv_heads": 4, "head_dim": 32}, None, EXACT),
        (BIASED, None, EXACT),
        (LLAMA, LinearScaling(type="linear", factor=2.0), EXACT),
        (LLAMA, Llama3Scaling(type="llama3", factor=8.0, train_length=32), EXACT),
        (LLAMA, YarnScaling(type="yarn", factor=4.0, train_length=32), EXACT),
        (GPT2, None, TABLED),
        (GPT2 | {"tied_embeddings": False}, None, TABLED),
    ],
    ids=["llama", "wide-heads", "biased", "linear", "llama3", "yarn", "gpt2", "gpt2-untied"],
)
def test_llama_cpp_continues_as_we_do(
    shape, scaling, bound, wide_decoder, trained_tokenizer, tmp_path
):
    decoder = wide_decoder(shape)
    if scaling is not None:
        decoder.scale_positions(scaling)
    path = tmp_path / "model.gguf"
    export_gguf(weights(decoder), described(decoder), trained_tokenizer, path, dtype="float32")
    require_equal(decoder, trained_tokenizer, path, bound)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_llama_cpp_continues_every_class_that_it_knows(
    name, wide_decoder, trained_tokenizer, tmp_path
):
    configuration = CONFIGURATIONS[name]
    description = of_configuration(configuration).from_configuration(configuration)
    decoder = wide_decoder(description)
    path = tmp_path / "model.gguf"
    word = name.split(":")[0]
    kept = "auto" if word in EXPECTED_NAMES else configuration["model_type"]
    export_gguf(weights(decoder), description, trained_tokenizer, path, kept)
    assert open_gguf(path).metadata["general.architecture"] == EXPECTED_NAMES.get(word, word)
    require_equal(decoder, trained_tokenizer, path, TABLED if name.startswith(GELU) else EXACT)
    found = import_model(path)
    assert filled(found.settings) == filled(description.settings)
    assert found.scaling == description.scaling
    assert found.description.forward == description.forward
    for key, tensor in weights(decoder).items():
        if decoder.settings.norm.unit_offset and key.endswith("norm.weight"):
            # 1 is added to gains, and taken away again.
            assert (found.state[key] - tensor).abs().max() <= torch.finfo(torch.float32).eps
        else:
            assert torch.equal(found.state[key], tensor), key


def filled(settings: ModelSettings) -> ModelSettings:
    """Return the settings with the defaults of heads written out."""
    heads = {"n_kv_heads": settings.kv_heads, "head_dim": settings.head_width}
    return settings.model_copy(update=heads)


def require_equal(
    decoder: Decoder,
    tokenizer_folder: Path,
    path: Path,
    bound: float,
    candidates: Sequence[str] = CANDIDATES,
) -> None:
    """Check 20 prompts whose choices are so clear that rounding cannot decide one."""
    tokenizer = TextTokenizer.load(tokenizer_folder)
    llama_cpp = LlamaCpp(path)
    compared, told = 0, 0
    for prompt in candidates:
        ids = tokenizer.encode(prompt)
        logarithms = continued(decoder, ids)
        first, second = logarithms.topk(2).values.T
        if (first - second).min() < 2 * bound:
            continue
        found = llama_cpp.greedy(prompt, NEW_TOKENS)
        assert found.prompt_tokens == len(ids), prompt
        assert found.tokens == logarithms.argmax(-1).tolist()
        for ours, theirs in zip(logarithms, found.likeliest, strict=False):
            for token, value in theirs.items():
                assert abs(float(ours[token]) - value) < bound
        compared, told = compared + 1, told + len(found.likeliest)
        if compared == N_PROMPTS:
            break
    assert compared == N_PROMPTS, "too few prompts with clear choices"
    assert told > N_PROMPTS, "llama.cpp told hardly any log-probabilities"


@torch.no_grad()
def continued(decoder: Decoder, ids: list[int]) -> Tensor:
    """Return the log-probabilities behind each of our greedy tokens, tokens x vocabulary."""
    sequence, found = list(ids), []
    for _ in range(NEW_TOKENS):
        logits = decoder.logits(decoder(torch.tensor([sequence])))[0, -1]
        found.append(logits.double().log_softmax(-1))
        sequence.append(int(found[-1].argmax()))
    return torch.stack(found)
