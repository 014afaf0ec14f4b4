"""FLOPs of layers with a sliding window: the scores that are left."""

import pytest

from feldspar.plan.flops import flops_per_token
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.model import ModelSettings

SHAPE = {
    "n_layers": 5,
    "d_model": 16,
    "n_heads": 4,
    "d_ff": 24,
    "vocab_size": 40,
    "max_sequence_length": 64,
    "head_dim": 6,
}


@pytest.mark.parametrize(
    ("window", "keys"),
    [
        (None, 5 * 64),
        ({"tokens": 10}, 5 * 10),
        ({"tokens": 10, "full_every": 2}, 3 * 10 + 2 * 64),
        ({"tokens": 64}, 5 * 64),
    ],
)
def test_keys_that_are_scored(window: dict[str, int] | None, keys: int) -> None:
    model = ModelSettings.model_validate(SHAPE | {"sliding_window": window})
    assert model.scored_keys(64) == keys
    assert model.scored_keys(7) == 5 * 7  # a context that fits into the window


@pytest.mark.parametrize("window", [None, 1, 10, 64])
def test_keys_that_are_scored_under_causality(window: int | None) -> None:
    """Counted one by one; the edges of the triangle or band, which count half, are taken off."""
    changes = {"sliding_window": None if window is None else {"tokens": window}, "n_layers": 1}
    model = ModelSettings.model_validate(SHAPE | changes)
    span = window or 64
    seen = sum(min(query + 1, span) for query in range(64))
    assert model.scored_keys_if_causal(64) * 64 == seen - span / 2


def test_a_plan_counts_the_scores_that_are_left() -> None:
    plain = load_recipe("btlm/small").recipe.model
    window = {"tokens": 16, "full_every": 2}
    loaded = load_recipe("btlm/small", ["model.sliding_window={tokens: 16, full_every: 2}"])
    model = loaded.recipe.model
    assert model == plain.model_copy(update={"sliding_window": model.sliding_window})
    plan = plan_recipe(loaded.recipe)
    context = plan.timeline.phases[0].context_length
    windowed, full = (
        flops_per_token(settings, plan.shapes, context)["6P+attention"]
        for settings in (model, plain)
    )
    hidden = (model.n_layers - model.n_layers // window["full_every"]) * (context - 16)
    assert full - windowed == 12 * model.n_heads * model.head_width * hidden
