"""llama.cpp itself as the reference of exported GGUF files (package ``xllamacpp``)."""

from dataclasses import dataclass
from pathlib import Path

import pytest

BESIDE = 2
"""The number of likeliest tokens whose log-probabilities llama.cpp is asked for."""


@dataclass(frozen=True)
class Continuation:
    """A prompt continued by llama.cpp."""

    prompt_tokens: int
    tokens: list[int]
    """Ids of the new tokens; the token that ends a text is not among them."""
    likeliest: list[dict[int, float]]
    """For each new token the log-probabilities of the likeliest tokens in its place.

    Empty where the text ends inside a character, for which llama.cpp reports none.
    """


class LlamaCpp:
    """llama.cpp with one model, one thread, and float32 keys and values."""

    def __init__(self, path: Path) -> None:
        package = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
        settings = package.CommonParams()
        settings.model.path = str(path)
        settings.n_ctx, settings.n_parallel, settings.warmup = 256, 1, False
        settings.n_gpu_layers = 0
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        settings.verbosity = -1
        settings.flash_attn_type = package.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.cache_type_k = settings.cache_type_v = package.ggml_type.GGML_TYPE_F32
        settings.cache_ram_mib = 0
        self._server = package.Server(settings)

    def greedy(self, prompt: str | list[int], new_tokens: int) -> Continuation:
        """Return ``prompt`` (a text, or ids) continued by the likeliest tokens."""
        answer = self._server.handle_completions(
            {
                "prompt": prompt,
                "n_predict": new_tokens,
                "temperature": 0.0,
                "n_probs": BESIDE,
                "cache_prompt": False,
                "return_tokens": True,
                "verbose": True,
            }
        )
        assert "error" not in answer, answer
        tokens = answer["__verbose"]["tokens"]
        reported = (answer["choices"][0]["logprobs"] or {}).get("content") or []
        likeliest = [
            {top["id"]: top["logprob"] for top in each["top_logprobs"]} for each in reported
        ]
        whole = [each["id"] for each in reported[: len(tokens)]] == tokens
        return Continuation(
            answer["usage"]["prompt_tokens"], tokens, likeliest[: len(tokens)] if whole else []
        )
