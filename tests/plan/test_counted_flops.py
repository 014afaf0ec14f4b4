"""The FLOPs of the ledger against torch's own counter over a forward and backward pass."""

from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from feldspar.model.rows import model_shapes
from feldspar.plan.flops import phase_ledger
from feldspar.plan.products import decoder_that_trains, needed_products
from feldspar.plan.timeline import PhasePlan
from feldspar.recipe.sections.lora import LoraSettings
from feldspar.recipe.sections.model import ModelSettings

CONTEXT = 24
SMALL = {"n_layers": 3, "d_model": 32, "d_ff": 128, "vocab_size": 50, "max_sequence_length": 32}
SHAPES = {
    "GPT-2": {"n_heads": 4},
    "Llama, grouped heads": {
        "n_heads": 4,
        "n_kv_heads": 2,
        "positions": {"type": "rotary"},
        "feed_forward": "swiglu",
        "d_ff": 88,
        "tied_embeddings": False,
    },
    "ALiBi": {"n_heads": 2, "positions": {"type": "alibi"}, "bias": False},
    "wide heads": {"n_heads": 3, "head_dim": 16},
    "parallel branches": {"n_heads": 4, "branches": "parallel", "query_key_norm": "head"},
    "Sparse Parallel": {"n_heads": 4, "sparse_iso_flop": {"type": "parallel", "sparsity": 0.75}},
    "Sparse Factorized": {"n_heads": 4, "sparse_iso_flop": {"type": "factorized", "sparsity": 0.5}},
    "Sparse Doped": {"n_heads": 4, "sparse_iso_flop": {"type": "doped", "sparsity": 0.5}},
}


LORA = {"rank": 4, "alpha": 8}
TRAINED: dict[str, tuple[dict[str, Any] | None, tuple[str, ...]]] = {
    "all": (None, ("*",)),
    "tables": (None, ("*embedding.weight", "output.weight")),
    "norms": (None, ("*norm*",)),
    "the last block": (None, ("blocks.2.*",)),
    "LoRA": (LORA, ("*.lora_?.weight",)),
    "LoRA of values": (LORA | {"targets": ["value"]}, ("*.lora_?.weight",)),
    "LoRA in the middle": (LORA | {"targets": ["blocks.1.feed_forward.*"]}, ("*.lora_?.weight",)),
    "LoRA and biases": (LORA, ("*.lora_?.weight", "*.bias", "blocks.1.attention_norm.*")),
    "LoRA and tables": (LORA, ("*.lora_?.weight", "*embedding.weight", "output.weight")),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("trained", TRAINED)
def test_the_ledger_of_a_dense_model_is_what_torch_counts(shape: str, trained: str) -> None:
    settings = ModelSettings.model_validate(SMALL | SHAPES[shape])
    values, patterns = TRAINED[trained]
    if values is not None and "sparse_iso_flop" in SHAPES[shape]:
        pytest.skip("recipes refuse LoRA of these maps")
    lora = None if values is None else LoraSettings.model_validate(values)
    shapes = model_shapes(settings, lora=lora)
    names = [row.name for row in shapes.rows]
    chosen = frozenset(name for name in names if any(fnmatchcase(name, p) for p in patterns))
    if not chosen:
        pytest.skip("the model has no such parameter")
    products = needed_products(settings, lora, chosen)
    if shape == "ALiBi" and 1 in products.attention:
        pytest.skip("attention without gradients carries slopes in further entries of the heads")
    with torch.device("meta"):
        decoder = decoder_that_trains(settings, lora, chosen)
        tokens = torch.empty((1, CONTEXT), dtype=torch.int64)
    # Other ways of attention compute scores again in the backward pass, which no convention counts.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        decoder.logits(decoder(tokens)).sum().backward()
    phase = cast(PhasePlan, SimpleNamespace(context_length=CONTEXT, length=CONTEXT))
    ledger = phase_ledger(settings, shapes.rows, phase, {}, products)
    assert counter.get_total_flops() == ledger["total"]
    if trained == "all":
        assert ledger == phase_ledger(settings, shapes.rows, phase, {})
