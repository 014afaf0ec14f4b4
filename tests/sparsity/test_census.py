"""Units counted as dead are those that no gradient reaches, on either side."""

import pytest
import torch
from torch import Tensor

from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import apply
from feldspar.parametrization.tables import table
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.recipe.sections.sparsity import StaticSparsity
from feldspar.sparsity.census import take_census
from feldspar.sparsity.masks import Masks

SHAPE = {
    "n_layers": 2,
    "d_model": 16,
    "n_heads": 4,
    "d_ff": 24,
    "vocab_size": 40,
    "max_sequence_length": 16,
}
BLOCK = "blocks.1."
FUSED, ATTENTION_OUTPUT = "attention.query_key_value.weight", "attention.output.weight"
INNER, INNER_OUTPUT = "feed_forward.input.weight", "feed_forward.output.weight"


def draw(
    settings: ModelSettings, sparsity: float = 0.5, block: tuple[int, int] = (1, 1)
) -> dict[str, Tensor]:
    static = StaticSparsity(type="static", sparsity=sparsity, block=block)
    return dict(Masks.draw(static, model_shapes(settings).rows, seed=0).tensors)


def unreached(settings: ModelSettings, masks: Masks) -> tuple[int, int]:
    """Feed-forward units and value channels of a block without a gradient on either side."""
    model = Decoder(settings)
    shapes = model_shapes(settings)
    apply(model, table(ParametrizationSettings(learning_rate=1.0, init_std=0.3), shapes), seed=0)
    masks.apply_to_weights(model)
    tokens = torch.randint(40, (4, 17), generator=torch.Generator().manual_seed(0))
    model.loss(tokens[:, :-1], tokens[:, 1:])[0].backward()
    moved = {
        name: parameter.grad != 0
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    fed = moved[BLOCK + INNER].any(1).view(-1, settings.d_ff).any(0)
    inner = ~(fed | moved[BLOCK + INNER_OUTPUT].any(0))
    width = settings.kv_heads * settings.head_width
    value = moved[BLOCK + FUSED][-width:].any(1)
    heads = (settings.kv_heads, -1, settings.head_width)
    read = moved[BLOCK + ATTENTION_OUTPUT].any(0).view(heads).any(1).flatten()
    return int(inner.sum()), int((~(value | read)).sum())


@pytest.mark.parametrize("changes", [{}, {"feed_forward": "swiglu", "n_kv_heads": 2}])
def test_dead_units_are_those_without_a_gradient(changes: dict[str, object]) -> None:
    settings = ModelSettings.model_validate(SHAPE | changes)
    tensors = draw(settings)
    width = settings.kv_heads * settings.head_width
    first_value = len(tensors[BLOCK + FUSED]) - width
    sharers = settings.n_heads // settings.kv_heads
    # Row alone, column alone, and both, of three units of each kind.
    tensors[BLOCK + INNER][0] = False
    tensors[BLOCK + INNER_OUTPUT][:, 1] = False
    tensors[BLOCK + INNER][2] = False
    tensors[BLOCK + INNER_OUTPUT][:, 2] = False
    tensors[BLOCK + FUSED][first_value] = False
    tensors[BLOCK + ATTENTION_OUTPUT][:, 1] = False
    last = width - 1  # the last channel of the last value head, read by its sharers
    tensors[BLOCK + FUSED][first_value + last] = False
    for head in range(settings.n_heads - sharers, settings.n_heads):
        column = (head + 1) * settings.head_width - 1
        tensors[BLOCK + ATTENTION_OUTPUT][:, column] = False
    masks = Masks(tensors)
    census = take_census(masks, model_shapes(settings))
    assert unreached(settings, masks) == (1, 1)
    assert census.dead_units == 2
    assert census.units == settings.n_layers * (settings.d_ff + width)


@pytest.mark.parametrize("changes", [{}, {"feed_forward": "swiglu", "n_kv_heads": 2}])
def test_blocks_leave_whole_groups_of_units_dead(changes: dict[str, object]) -> None:
    settings = ModelSettings.model_validate(SHAPE | {"n_layers": 4} | changes)
    masks = Masks(draw(settings, 0.8, block=(4, 8)))
    last = {name: mask for name, mask in masks.tensors.items() if name.startswith(BLOCK)}
    census = take_census(Masks(last), model_shapes(settings))
    assert sum(unreached(settings, masks)) == census.dead_units > 0
    assert take_census(masks, model_shapes(settings)).kept == sum(
        int(mask.sum()) for mask in masks.tensors.values()
    )


def test_all_is_counted_once_and_by_part() -> None:
    settings = ModelSettings.model_validate(SHAPE)
    masks = Masks(draw(settings, 0.75))
    census = take_census(masks, model_shapes(settings))
    assert census.entries == 2 * (4 * 16 * 16 + 2 * 16 * 24)
    assert census.kept == census.entries // 4
    attention = ("query", "key", "value", "output")
    expected = {f"attention.{part}" for part in attention} | {
        "feed_forward.input",
        "feed_forward.output",
    }
    assert set(census.density_by_part) == expected
    assert census.density_by_part["attention.output"] == 0.25
    fused = [census.density_by_part[f"attention.{part}"] for part in ("query", "key", "value")]
    assert sum(fused) / 3 == pytest.approx(0.25)
    assert census.dead_units == 0


def test_a_matrix_left_dense_has_no_dead_units() -> None:
    settings = ModelSettings.model_validate(SHAPE | {"feed_forward": "swiglu"})
    tensors = draw(settings)
    tensors = {name: mask for name, mask in tensors.items() if "output" not in name}
    tensors[BLOCK + INNER][:] = False
    census = take_census(Masks(tensors), model_shapes(settings))
    assert (census.units, census.dead_units) == (0, 0)
    assert census.density_by_part["feed_forward.gate"] == pytest.approx(0.25, abs=0.02)
