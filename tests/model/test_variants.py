"""Shapes of open models: the decoder against the formulas written out, in all ways it runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from feldspar.model.context import KeyValueCache
from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes
from feldspar.recipe.sections.model import ModelSettings
from tests.model.conftest import SMALL
from tests.model.naive_decoder import naive_logits
from tests.model.test_decoder import DOCUMENTS
from tests.rounding import assert_within_rounding, terms_of

RMS = {"type": "rms", "epsilon": 1e-6}
LLAMA = {"positions": "rotary", "feed_forward": "swiglu", "n_kv_heads": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "biases": LLAMA | {"bias": {"query_key_value": True}},
    "geglu": LLAMA | {"feed_forward": "geglu", "norm": RMS},
    "geglu_erf": {"feed_forward": "geglu_erf"},
    "gelu_erf": {"feed_forward": "gelu_erf", "bias": {"norm": True, "attention_output": True}},
    "relu": {"feed_forward": "relu"},
    "offset": LLAMA | {"norm": RMS | {"unit_offset": True}},
    "after": LLAMA | {"norm": RMS | {"place": "after"}, "query_key_norm": "whole"},
    "both": LLAMA | {"norm": {"place": "both"}},
    "head_norm": LLAMA | {"query_key_norm": "head", "head_dim": 6},
    "head_layer_norm": {"query_key_norm": "head", "positions": "alibi"},
    "parallel": {"branches": "parallel", "positions": {"type": "rotary", "fraction": 0.5}},
    "one_norm": {"branches": "parallel_one_norm", "n_kv_heads": 1, "bias": False},
    "soft_caps": LLAMA | {"attention_soft_cap": 2.0, "logit_soft_cap": 3.0},
    "embedding_norm": {"embedding_norm": True, "positions": "alibi"},
    "slopes": {"positions": {"type": "alibi", "slope_multiplier": 0.5}},
    "rounded_slopes": {
        "positions": {"type": "alibi", "slope_multiplier": 0.5, "rounded": True},
        "n_heads": 12,
        "n_kv_heads": 4,
        "head_dim": 4,
    },
    "windows": LLAMA
    | {
        "n_layers": 3,
        "sliding_window": {"tokens": 4, "full_layers": [0]},
        "positions": {"type": "rotary", "base": 1e6, "window_base": 1e4},
    },
    "no_positions": LLAMA | {"positions": {"type": "rotary", "layers_without": [1]}},
    "gemma": LLAMA
    | {
        "feed_forward": "geglu",
        "norm": RMS | {"place": "both", "unit_offset": True},
        "query_key_norm": "head",
        "attention_soft_cap": 5.0,
        "logit_soft_cap": 3.0,
        "sliding_window": {"tokens": 3, "full_every": 2},
    },
    "revnet": LLAMA | {"reversible": True, "n_layers": 3},
    "revnet_parallel": {
        "reversible": "revnet",
        "branches": "parallel_one_norm",
        "positions": "alibi",
        "bias": False,
    },
    "revnet_norms": LLAMA | {"reversible": "revnet", "norm": RMS | {"place": "both"}},
    "reformer": {"reversible": "reformer", "positions": "alibi"},
    "reformer_windows": LLAMA
    | {"reversible": {"type": "reformer"}, "n_layers": 3}
    | {"sliding_window": {"tokens": 4, "full_layers": [0]}},
    "sparse_parallel": LLAMA
    | {
        "sparse_iso_flop": {"type": "parallel", "sparsity": 0.5},
        "norm": RMS | {"unit_offset": True},
    },
    "sparse_factorized": {"sparse_iso_flop": {"type": "factorized", "sparsity": 0.5}},
    "sparse_doped": LLAMA | {"sparse_iso_flop": {"type": "doped", "sparsity": 0.5}, "bias": True},
    "sparse_both": {
        "sparse_iso_flop": {"type": "parallel", "sparsity": 0.75},
        "norm": {"place": "both"},
        "query_key_norm": "whole",
    },
}
each_variant = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
Make = Callable[..., Any]


@each_variant
def test_logits_and_gradients_equal_the_formulas(
    changes: dict[str, Any], make_decoder: Make, random_tokens: Make
) -> None:
    decoder, tokens = make_decoder(**changes), random_tokens(2, 9)
    labels = random_tokens(2, 9, seed=2)
    bound = terms_of(decoder, tokens)
    expected = naive_logits(decoder, tokens)
    assert_within_rounding(decoder.logits(decoder(tokens)), expected, bound)
    loss, count = decoder.loss(tokens, labels)
    expected_loss = F.cross_entropy(expected.flatten(0, 1), labels.flatten(), reduction="sum")
    assert_within_rounding(loss, expected_loss, bound)
    assert count == labels.numel()
    losses = decoder.token_losses(tokens, labels)
    assert_within_rounding(losses.sum(), expected_loss, bound)
    parameters = list(decoder.parameters())
    found = torch.autograd.grad(loss, parameters)
    reference = torch.autograd.grad(expected_loss, parameters)
    scale = max(float(gradient.abs().max()) for gradient in reference)
    assert_within_rounding(found, reference, bound, scale=scale)


@each_variant
def test_documents_and_cache(
    changes: dict[str, Any], make_decoder: Make, random_tokens: Make
) -> None:
    decoder, tokens = make_decoder(**changes), random_tokens(*DOCUMENTS.shape)
    bound = terms_of(decoder, tokens)
    apart = decoder.logits(decoder(tokens, document_ids=DOCUMENTS))
    assert_within_rounding(apart, naive_logits(decoder, tokens, DOCUMENTS), bound)
    whole = decoder.logits(decoder(tokens))
    cache = KeyValueCache(decoder.settings, len(tokens), tokens.shape[1])
    pieces = [decoder(part, cache=cache) for part in (tokens[:, :4], *tokens[:, 4:].split(1, 1))]
    assert_within_rounding(decoder.logits(torch.cat(pieces, 1)), whole, bound)


@each_variant
def test_recomputed_and_in_bfloat16(
    changes: dict[str, Any], make_decoder: Make, random_tokens: Make
) -> None:
    decoder, tokens = make_decoder(**changes), random_tokens(2, 9)
    parameters = list(decoder.parameters())
    plain = torch.autograd.grad(decoder.loss(tokens, tokens)[0], parameters)
    reversible = decoder.settings.reversible is not None
    for memory in ("recompute", "reversible") if reversible else ("recompute",):
        decoder.activation_memory = memory
        again = torch.autograd.grad(decoder.loss(tokens, tokens)[0], parameters)
        if not reversible:  # two streams sum their gradients in another order
            assert all(map(torch.equal, plain, again))
        scale = max(float(gradient.abs().max()) for gradient in plain)
        assert_within_rounding(again, plain, terms_of(decoder, tokens), scale=scale)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = decoder.loss(tokens, tokens)[0]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter.grad).all() for parameter in parameters)


@each_variant
def test_recipes_keep_what_differs_from_the_default(changes: dict[str, Any]) -> None:
    settings = ModelSettings.model_validate(SMALL | changes)
    assert ModelSettings.model_validate_json(settings.model_dump_json()) == settings
    assert model_shapes(settings).parameters == sum(
        parameter.numel() for parameter in Decoder(settings).parameters()
    )


def test_a_plain_recipe_names_none_of_the_later_settings() -> None:
    written = ModelSettings.model_validate(SMALL | LLAMA).model_dump_json()
    for name in ("place", "unit_offset", "branches", "soft_cap", "window", "query_key_norm"):
        assert name not in written


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"norm": {"unit_offset": True}}, "unit_offset"),
        ({"branches": "parallel", "norm": {"place": "after"}}, "branches"),
        ({"attention_soft_cap": 1.0, "positions": "alibi"}, "attention_soft_cap"),
        ({"sliding_window": {"tokens": 4, "full_layers": [2]}}, "full_layers"),
        ({"sliding_window": {"tokens": 4, "full_layers": [1, 0]}}, "full_layers"),
        ({"sliding_window": {"tokens": 4, "full_layers": [0], "full_every": 2}}, "full_every"),
        ({"positions": {"type": "rotary", "layers_without": [-1]}}, "layers_without"),
        ({"positions": {"type": "rotary", "window_base": 10.0}}, "window_base"),
        ({"bias": {"head": True}}, "bias"),
        ({"logit_soft_cap": 0.0}, "logit_soft_cap"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ModelSettings.model_validate(SMALL | changes)
