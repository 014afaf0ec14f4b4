"""The FLOPs of the ledger against torch's own counter over a forward and backward pass."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes
from feldspar.plan.flops import phase_ledger
from feldspar.plan.timeline import PhasePlan
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
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_ledger_of_a_dense_model_is_what_torch_counts(shape: str) -> None:
    settings = ModelSettings.model_validate(SMALL | SHAPES[shape])
    with torch.device("meta"):
        decoder = Decoder(settings)
        tokens = torch.empty((1, CONTEXT), dtype=torch.int64)
    # Other ways of attention compute scores again in the backward pass, which no convention counts.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        decoder.logits(decoder(tokens)).sum().backward()
    phase = cast(PhasePlan, SimpleNamespace(context_length=CONTEXT, length=CONTEXT))
    ledger = phase_ledger(settings, model_shapes(settings), phase, kept={})
    assert counter.get_total_flops() == ledger["total"]
